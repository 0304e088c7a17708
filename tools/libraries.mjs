// The one file (or, where roles need it, few) that may import each third-party library. Globs from the root.
const NEST = [
  'apps/*/src/*.module.ts',
  'apps/*/src/*.controller.ts',
  'apps/gateway/src/{main,boot,gateway}.ts',
];
const GRPC = ['libs/cluster/src/rpc.ts', 'apps/gateway/src/admin*.ts'];

export const LIBRARY_OWNERS = {
  '@grpc/grpc-js': GRPC,
  '@grpc/proto-loader': GRPC,
  '@nestjs/common': NEST,
  '@nestjs/core': NEST,
  '@nestjs/microservices': NEST,
  '@node-rs/argon2': ['apps/auth/src/methods/password-hash.ts'],
  '@peculiar/x509': ['apps/gateway/src/first-run.ts'],
  commander: ['apps/gateway/src/cli.ts'],
  'ipaddr.js': ['libs/protocol/src/addresses.ts'],
  pino: ['libs/chassis/src/log.ts'],
  'prom-client': ['libs/chassis/src/metrics.ts'],
  'reflect-metadata': [...NEST, 'apps/gateway/src/first-run.ts'],
  rxjs: NEST,
  saxes: ['libs/protocol/src/xml.ts'],
  tuntap2: ['libs/engine/src/portable.ts'],
  unixcrypt: ['apps/auth/src/methods/crypt-worker.ts'],
  yaml: ['libs/chassis/src/config.ts'],
  zod: ['libs/cluster/src/settings-schema.ts'],
};
