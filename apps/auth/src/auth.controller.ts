import { Controller, Inject, Injectable, UsePipes, type PipeTransform } from '@nestjs/common';
import { GrpcMethod, Payload, RpcException } from '@nestjs/microservices';
import {
  beginRequestFrom,
  fromWire,
  hashToken,
  outlived,
  replyRequestFrom,
  WireError,
  type AuthService,
  type BeginRequest,
  type LoginAnswer,
  type LogoutRequest,
  type LogoutResponse,
  type LookupRequest,
  type LookupResponse,
  type ReplyRequest,
  type Sessions,
} from '@sallyport/cluster';
import { LoginFlow } from './login-flow.ts';

/** Token of the parts that the controller stands on; see `AuthModule.with`. */
export const AUTH_PARTS = Symbol('auth parts');

export interface AuthParts {
  flow: LoginFlow;
  sessions: Pick<Sessions, 'find' | 'end'>;
  /** ms since 1970. */
  now: () => number;
}

/** Messages as gRPC hands them over become those of our interfaces; calls in process do not pass here. */
@Injectable()
export class FromWire implements PipeTransform {
  transform(value: unknown): unknown {
    return fromWire(value);
  }
}

/** The same where a part that the contract allows to be absent is needed. */
function needing(check: (message: unknown) => object): PipeTransform {
  return {
    transform(value: unknown) {
      try {
        return check(value);
      } catch (error) {
        if (error instanceof WireError)
          throw new RpcException({ code: INVALID_ARGUMENT, message: error.message });
        throw error;
      }
    },
  };
}

/** gRPC status code. */
const INVALID_ARGUMENT = 3;

/** proto/auth.proto. It is an AuthService itself: `apps/gateway` calls it in process, others by gRPC. */
@Controller()
@UsePipes(FromWire)
export class AuthController implements AuthService {
  readonly #parts: AuthParts;

  constructor(@Inject(AUTH_PARTS) parts: AuthParts) {
    this.#parts = parts;
  }

  @GrpcMethod('AuthService', 'Begin')
  begin(@Payload(needing(beginRequestFrom)) request: BeginRequest): Promise<LoginAnswer> {
    return this.#parts.flow.begin(request);
  }

  @GrpcMethod('AuthService', 'Reply')
  reply(@Payload(needing(replyRequestFrom)) request: ReplyRequest): Promise<LoginAnswer> {
    return this.#parts.flow.reply(request);
  }

  @GrpcMethod('AuthService', 'Logout')
  async logout(@Payload() request: LogoutRequest): Promise<LogoutResponse> {
    const session = await this.#parts.sessions.find(hashToken(request.token));
    return { ended: session !== undefined && (await this.#parts.sessions.end(session.id, 'logout')) };
  }

  @GrpcMethod('AuthService', 'Lookup')
  async lookup(@Payload() request: LookupRequest): Promise<LookupResponse> {
    const session = await this.#parts.sessions.find(hashToken(request.token));
    const ended =
      !session || session.state === 'closed' || outlived(session, BigInt(this.#parts.now()) * 1000n);
    if (ended) return { live: false, sessionId: '', profile: '', group: '', profileFile: '' };
    const { id, profile, grant } = session;
    return { live: true, sessionId: id, profile, group: grant.group, profileFile: grant.profileFile };
  }
}
