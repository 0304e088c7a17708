#!/bin/sh
# Server adapter: this gateway in the foreground from the VB_* environment of bench/README.md, after `npm run build`.
# State stays in VB_WORK/sallyport: a second start with the same folder goes on where the first ended.
set -eu
bench=$(dirname "$(readlink -f "$0")")
state=$VB_WORK/sallyport
umask 077
mkdir -p "$state"

# Hashed again only when the list has changed, so that a restart under load loses no time.
sum=$(sha256sum <"$VB_USERS")
if [ "$sum" != "$(cat "$state/users.sum" 2>/dev/null)" ]; then
	node "$bench/hash-users.mjs" "$VB_USERS" "$state/users"
	echo "$sum" >"$state/users.sum"
fi

{
	cat <<CONF
listen-host: $VB_LISTEN
tcp-port: $VB_PORT
udp-port: $VB_PORT
admin-address: ${VB_ADMIN:-127.0.0.1:9480}
server-cert: $VB_CERT
server-key: $VB_KEY
users-file: users
return-path: none
ipv4-network: $VB_POOL_CIDR
route: [$VB_LAN_NET]
max-clients: 0
max-same-clients: 0
connects-per-token: 0
max-connections-per-address: 0
max-logins-per-address: 0
log-level: ${VB_LOG_LEVEL:-warn}
CONF
	[ -z "${VB_DPD:-}" ] || printf 'dpd: %s\nmobile-dpd: %s\n' "$VB_DPD" "$VB_DPD"
	[ -z "${VB_KEEPALIVE:-}" ] || printf 'keepalive: %s\n' "$VB_KEEPALIVE"
	if [ -n "${VB_GROUPS:-}" ]; then
		echo 'profiles:'
		echo "$VB_GROUPS" | tr ',' '\n' | sed 's/.*/  "&": { methods: [local] }/'
	fi
} >"$state/sallyport.yaml"

export UV_THREADPOOL_SIZE=16
# Measured is what serves, not its start: the services are loaded before the port opens, and no supervisor opens it earlier.
services=$(cd "$bench/.." && pwd)/apps/gateway/dist/services.js
exec node --import "file://$services" "$bench/../bin/sallyport" gateway --config "$state/sallyport.yaml" --state-dir "$state"
