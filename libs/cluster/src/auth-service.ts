import type { Reason } from '@sallyport/protocol';

/** The shapes of proto/auth.proto as JavaScript sees them (`keepCase: false, defaults, oneofs`). */
export interface AuthService {
  /** A new login, or another profile chosen for one. */
  begin(request: BeginRequest): Promise<LoginAnswer>;
  reply(request: ReplyRequest): Promise<LoginAnswer>;
  logout(request: LogoutRequest): Promise<LogoutResponse>;
  /** The session of a cookie, for the downloader. */
  lookup(request: LookupRequest): Promise<LookupResponse>;
}

export interface CertificateFacts {
  /** Chain, time and revocation are good for one of the CAs of `ca-cert`. */
  verified: boolean;
  /** Why not; '' = verified. */
  problem: string;
  /** The leaf. */
  der: Uint8Array;
}

export interface ClientFacts {
  address: string;
  userAgent: string;
  platform: string;
  /** base64 SPKI of `X-AnyConnect-STRAP-Pubkey`; '' = none. */
  strapKey: string;
  serverName: string;
  certificate?: CertificateFacts;
}

export interface BeginRequest {
  /** `<group-select>` or form field: value or label; '' = none. */
  profile: string;
  /** From the path: `/NAME`; '' = none. Then no list is shown. */
  urlProfile: string;
  client: ClientFacts;
  /** The client said `<client-cert-fail/>`. */
  certificateFailed: boolean;
  /** Handle of the login that this one replaces (cookie of a client that picks another profile); absent or '' = none. */
  loginId?: string;
}

export interface ReplyRequest {
  /** From `<opaque>` or the cookie. */
  loginId: string;
  /** Field name to value, as the client sent them. */
  answers: Record<string, string>;
  /** `<group-select>` of the reply; '' = none. */
  profile: string;
  client: ClientFacts;
}

/** Exactly one is set. */
export interface LoginAnswer {
  form?: LoginForm;
  certificateRequest?: { loginId: string; profile: string };
  refused?: { reason: Reason; text: string };
  granted?: LoginGranted;
}

export interface LoginForm {
  loginId: string;
  /** `main` or `challenge`. */
  id: string;
  title: string;
  /** Pre-login banner; '' = none. */
  banner: string;
  message: string;
  /** Why this form comes again; '' = first time. */
  error: string;
  fields: FormField[];
  /** Chosen profile first; empty = show no list. */
  profiles: ProfileOption[];
  profile: ProfileOption;
}

export interface FormField {
  name: string;
  kind: 'text' | 'password' | 'hidden';
  label: string;
  value: string;
}

export interface ProfileOption {
  name: string;
  label: string;
}

export interface LoginGranted {
  sessionId: string;
  token: string;
  user: string;
  profile: string;
  group: string;
  banner: string;
  /** Client profile to announce: key for the catalog; '' = none. */
  profileFile: string;
}

export interface LogoutRequest {
  token: string;
}
export interface LogoutResponse {
  ended: boolean;
}

export interface LookupRequest {
  token: string;
}
export interface LookupResponse {
  /** False: unknown, ended or past its time; the rest is empty then. */
  live: boolean;
  sessionId: string;
  profile: string;
  group: string;
  profileFile: string;
}

/** proto/catalog.proto: what the downloader serves, so that the portal announces the same. */
export interface CatalogService {
  announce(request: AnnounceRequest): Promise<Announcement>;
}
export interface AnnounceRequest {
  /** As in LoginGranted. */
  profileFile: string;
  platform: string;
}
export interface Announcement {
  /** e.g. `/CACHE/stc/1`. */
  basePackageUri: string;
  /** e.g. `0,0,0000` for "no update". */
  packageVersion: string;
  packages: PackageEntry[];
  /** '' = no profile. */
  profileUri: string;
  /** SHA-1 over the exact bytes, upper-case hex. */
  profileSha1: string;
}
export interface PackageEntry {
  id: string;
  version: string;
  isCore: boolean;
  /** `msi`, `dmg`, `sh` … */
  type: string;
  /** e.g. `win:6.1.7601`. */
  os: string;
  /** '' for the core. */
  module: string;
  uri: string;
  displayName: string;
}
