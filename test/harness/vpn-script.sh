#!/bin/sh
# The --script of openconnect in tests: address, MTU and routes in the client's own namespace, and one line per event.
routes() { # COUNT PREFIX-OF-VARIABLES FAMILY
	i=0
	while [ "$i" -lt "${1:-0}" ]; do
		eval "net=\$${2}_${i}_ADDR/\$${2}_${i}_MASKLEN"
		ip "$3" route append "$net" dev "$TUNDEV"
		i=$((i + 1))
	done
}

case "$reason" in
connect)
	ip link set "$TUNDEV" mtu "${INTERNAL_IP4_MTU:-1400}" up
	if [ -n "$INTERNAL_IP4_ADDRESS" ]; then
		ip addr add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
		if [ -n "$CISCO_SPLIT_INC" ]; then
			routes "$CISCO_SPLIT_INC" CISCO_SPLIT_INC -4
		else
			ip -4 route append 0.0.0.0/1 dev "$TUNDEV"
			ip -4 route append 128.0.0.0/1 dev "$TUNDEV"
		fi
	fi
	if [ -n "$INTERNAL_IP6_ADDRESS" ]; then
		ip -6 addr add "${INTERNAL_IP6_NETMASK:-$INTERNAL_IP6_ADDRESS/128}" dev "$TUNDEV" nodad
		routes "$CISCO_IPV6_SPLIT_INC" CISCO_IPV6_SPLIT_INC -6
	fi
	[ -z "$CISCO_BANNER" ] || echo "BANNER $CISCO_BANNER"
	echo "TUNNEL-UP dev=$TUNDEV ipv4=$INTERNAL_IP4_ADDRESS ipv6=$INTERNAL_IP6_ADDRESS mtu=$INTERNAL_IP4_MTU dns=$INTERNAL_IP4_DNS domain=$CISCO_DEF_DOMAIN"
	;;
reconnect) echo "TUNNEL-RECONNECT ipv4=$INTERNAL_IP4_ADDRESS ipv6=$INTERNAL_IP6_ADDRESS" ;;
disconnect) echo "TUNNEL-DOWN" ;;
esac
exit 0
