import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { Transport } from '@nestjs/microservices';
import type { DynamicModule, RpcExceptionFilter } from '@nestjs/common';
import type { GrpcOptions } from '@nestjs/microservices';
import { throwError, type Observable } from 'rxjs';
import { NestLog, StartError, type Log } from '@sallyport/chassis';
import {
  rpcServer,
  ServiceUnavailable,
  STORE_UNAVAILABLE,
  StoreUnavailable,
  type RpcServerOptions,
} from '@sallyport/cluster';

export interface RpcServer {
  /** Says first that it takes no more, then finishes what is under way. Idempotent. */
  close(): Promise<void>;
}

/** Controllers of one module over gRPC with mutual TLS. @throws StartError when it cannot listen. */
export async function serveRpc(
  module: DynamicModule,
  options: RpcServerOptions,
  log: Log,
): Promise<RpcServer> {
  const { options: transport, health } = await rpcServer(options);
  const app = await NestFactory.createMicroservice<GrpcOptions>(module, {
    transport: Transport.GRPC,
    options: transport,
    logger: new NestLog(log.child({ part: 'rpc' })),
    abortOnError: false,
  });
  app.useGlobalFilters(new Faults(log));
  try {
    await app.listen();
  } catch (error) {
    throw new StartError(
      `${options.listen} cannot be listened on: is another process there, or is it no address of this machine?`,
      { cause: error },
    );
  }
  let closed: Promise<void> | undefined;
  return {
    close() {
      health.serving = 'NOT_SERVING';
      return (closed ??= app.close());
    },
  };
}

/** Faults of a service as the status by which its clients know what to do. */
class Faults implements RpcExceptionFilter {
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  catch(fault: unknown): Observable<never> {
    return throwError(() => this.#status(fault));
  }

  #status(fault: unknown): { code: number; message: string } {
    if (fault instanceof StoreUnavailable) return { code: UNAVAILABLE, message: STORE_UNAVAILABLE };
    if (fault instanceof ServiceUnavailable) return { code: UNAVAILABLE, message: fault.message };
    const error = fault instanceof Error && 'getError' in fault ? rpcError(fault) : undefined;
    if (error) return error;
    this.#log.error({ err: fault }, 'a call failed');
    return { code: INTERNAL, message: 'internal error' };
  }
}

/** What a controller threw on purpose. */
function rpcError(fault: Error & { getError: unknown }): { code: number; message: string } | undefined {
  const error: unknown = typeof fault.getError === 'function' ? fault.getError.call(fault) : undefined;
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return { code: Number(error.code), message: fault.message };
}

/** gRPC status codes. */
const INTERNAL = 13;
const UNAVAILABLE = 14;
