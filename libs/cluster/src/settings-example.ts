/** The sallyport.yaml that the first start writes; every value may be changed. */
export function exampleSettings(
  choices: { tcpPort?: number; pool?: string; route?: string; tls?: { cert: string; key: string } } = {},
): string {
  const {
    tcpPort = 443,
    pool = '10.90.0.0/16',
    route = '10.0.0.0/8',
    tls = { cert: 'tls/cert.pem', key: 'tls/key.pem' },
  } = choices;
  return `# Sallyport. All keys: docs/configuration.md. Check with: sallyport check-config sallyport.yaml
# After a change: sallyport reload. Paths are relative to this file.

tcp-port: ${tcpPort}
admin-address: 127.0.0.1:9480      # /health/live, /health/ready, /metrics

# Your own certificate: put the chain and the key here, then reload.
# Secure Client refuses certificates that its machine does not trust.
server-cert: ${tls.cert}
server-key: ${tls.key}

# Addresses for clients, and how answers find back to them: nat, or none if you have routes to the pool.
ipv4-network: ${pool}
return-path: nat

# What clients reach through the tunnel; "default" = everything.
route: [${route}]
#dns: [10.0.0.53]
#default-domain: example.org

# Users, groups and password hashes: sallyport user add NAME --group staff
users-file: users

#pre-login-banner: Authorised use only.

# What users choose from. methods: local (password), certificate (needs ca-cert), or both.
profiles:
  staff:
    label: Staff
    methods: [local]
    default: true
  guests:                          # everybody sees it; only users of the group guests may enter
    label: Guests
    methods: [local]
    group: guests
    allow-groups: [guests]

# Policy of groups and users; the narrowest wins: top level, profile, group, user.
groups:
  guests:
    session-timeout: 28800         # seconds
    max-same-clients: 1
#users: { alice: { explicit-ipv4: 10.90.1.1 } }
`;
}
