import { fileURLToPath } from 'node:url';

/** How every `.proto` of ours is loaded, by servers and clients alike, so that both see the shapes of our interfaces. */
export const WIRE_LOADER = { keepCase: false, longs: String, defaults: true, oneofs: true } as const;

/** Where the contract of auth lies and what it is called: for Nest's gRPC transport and for `@grpc/proto-loader`. */
export const AUTH_WIRE = {
  package: 'sallyport.auth.v1',
  service: 'AuthService',
  protoPath: fileURLToPath(new URL('../proto/auth.proto', import.meta.url)),
  loader: WIRE_LOADER,
} as const;

/** The same of the downloader's catalog. */
export const CATALOG_WIRE = {
  package: 'sallyport.catalog.v1',
  service: 'CatalogService',
  protoPath: fileURLToPath(new URL('../proto/catalog.proto', import.meta.url)),
  loader: WIRE_LOADER,
} as const;

/** The same of a tunnel node. */
export const NODE_WIRE = {
  package: 'sallyport.node.v1',
  service: 'NodeService',
  protoPath: fileURLToPath(new URL('../proto/node.proto', import.meta.url)),
  loader: WIRE_LOADER,
} as const;

/** Users as auth knows them. */
export const ACCOUNT_WIRE = {
  package: 'sallyport.account.v1',
  service: 'AccountService',
  protoPath: fileURLToPath(new URL('../proto/account.proto', import.meta.url)),
  loader: WIRE_LOADER,
} as const;

/** Where a contract lies and what it is called. */
export interface Wire {
  package: string;
  service: string;
  protoPath: string;
  loader: typeof WIRE_LOADER;
}

/** Details of UNAVAILABLE by which a service says that it lives and its store does not. */
export const STORE_UNAVAILABLE = 'store-unavailable';

/** Names of oneofs in our contracts: the loader adds a property of that name that says which member is set. */
const ONEOF_NAMES: ReadonlySet<string> = new Set(['answer']);

/**
 * A message as gRPC hands it over, in the shape of our interfaces: the loader gives `null` for a message that is
 * absent and adds a property for each oneof; both are left out here. The only place that knows about it.
 */
export function fromWire(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fromWire);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const isMap = Object.getPrototypeOf(value) === null;
  const result: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value)) {
    if (member === null || (!isMap && isOneofName(key, member, value))) continue;
    // Object.defineProperty: a key `__proto__` of a map is data, not the prototype.
    Object.defineProperty(result, key, {
      value: fromWire(member),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return result;
}

function isOneofName(key: string, member: unknown, message: object): boolean {
  return ONEOF_NAMES.has(key) && typeof member === 'string' && Object.hasOwn(message, member);
}
