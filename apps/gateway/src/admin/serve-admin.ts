import 'reflect-metadata';
import { chmod, unlink } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { NestFactory } from '@nestjs/core';
import { Transport } from '@nestjs/microservices';
import type { DynamicModule, Type } from '@nestjs/common';
import type { GrpcOptions } from '@nestjs/microservices';
import { NestLog, StartError } from '@sallyport/chassis';
import type { AdminParts } from './admin.controller.ts';
import { AdminModule } from './admin.module.ts';
import { probeSocket } from './socket-probe.ts';
import { ADMIN_PACKAGE, PROTO_OPTIONS } from './wire.ts';

export interface AdminServer {
  /** One of the controllers of `others`. */
  get<T>(type: Type<T>): T;
  /** Closes the socket and removes it. Idempotent. */
  close(): Promise<void>;
}

/**
 * The admin service on a Unix socket that only its owner may open. Rejects with a StartError.
 * @param others modules of the same Nest application; only the admin service is reachable through the socket.
 */
export async function serveAdmin(
  parts: AdminParts,
  socket: string,
  others: DynamicModule[] = [],
): Promise<AdminServer> {
  await removeStaleSocket(socket);
  const app = await NestFactory.createMicroservice<GrpcOptions>(AdminModule.with(parts, others), {
    transport: Transport.GRPC,
    options: {
      package: ADMIN_PACKAGE,
      protoPath: ADMIN_PROTO,
      url: `unix:${socket}`,
      loader: { ...PROTO_OPTIONS },
    },
    logger: new NestLog(parts.log.child({ part: 'admin' })),
    abortOnError: false,
  });
  // Nobody else may open it, not even between bind and chmod.
  const before = process.umask(0o177);
  try {
    await app.listen();
    await chmod(socket, 0o600);
  } catch (error) {
    throw new StartError(`The admin socket ${socket} cannot be made: check the state folder.`, {
      cause: error,
    });
  } finally {
    process.umask(before);
  }
  let closed: Promise<void> | undefined;
  return {
    get: (type) => app.get(type, { strict: false }),
    close() {
      closed ??= app.close().then(() => unlink(socket).catch(() => undefined));
      return closed;
    },
  };
}

/** A socket whose process is dead is removed; one that answers is another gateway's. */
async function removeStaleSocket(socket: string): Promise<void> {
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES) {
    throw new StartError(`The path ${socket} is too long for a Unix socket: choose a shorter --state-dir.`);
  }
  const code = await probeSocket(socket);
  if (code === '') {
    throw new StartError(
      `Another gateway runs with ${socket}: stop it (sallyport stop now) or choose another --state-dir.`,
    );
  }
  if (code === 'ECONNREFUSED') await unlink(socket);
}

export const ADMIN_PROTO = fileURLToPath(
  new URL('../proto/admin.proto', import.meta.resolve('@sallyport/cluster')),
);
/** sun_path of Linux holds 108 bytes with the NUL. */
const MAX_SOCKET_PATH_BYTES = 107;
