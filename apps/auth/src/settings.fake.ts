import type { ProfileSettings, Settings } from '@sallyport/cluster';

/** A configuration with one profile `staff` of method `local`; `change` replaces whole keys. For tests only. */
export function fakeSettings(change: Partial<Settings> = {}): Settings {
  return {
    file: '/etc/sallyport.yaml',
    revision: 'test',
    listenHost: '',
    tcpPort: 443,
    udpPort: 443,
    adminAddress: '127.0.0.1:9480',
    tls: {
      certFiles: [],
      keyFiles: [],
      caFile: '',
      crlFile: '',
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
    },
    device: 'vpns',
    engine: 'auto',
    listener: 'auto',
    returnPath: 'none',
    natAddresses: [],
    clientToClient: true,
    node: { name: 'n1', number: 1, slices: 0, advertisedUdpPort: 443, address: '' },
    services: { auth: [], portal: [], downloader: [], catalog: [] },
    listen: { auth: '', portal: '', downloader: '', catalog: '', node: '' },
    isolationLimitSeconds: 10,
    usersFile: '',
    packagesDir: '',
    preLoginBanner: '',
    certUserField: 'CN',
    strap: 'lenient',
    authTimeoutSeconds: 240,
    maxLoginTries: 3,
    maxClients: 0,
    connectsPerTokenPerMinute: 0,
    maxConnectionsPerAddress: 0,
    maxLoginsPerAddress: 0,
    trustedProxies: [],
    logLevel: 'info',
    profiles: { staff: fakeProfile('staff') },
    defaultProfile: 'staff',
    policy: {},
    groups: {},
    users: {},
    vhosts: {},
    ...change,
  };
}

export function fakeProfile(name: string, change: Partial<ProfileSettings> = {}): ProfileSettings {
  return { name, label: '', methods: ['local'], group: '', allowGroups: [], policy: {}, ...change };
}
