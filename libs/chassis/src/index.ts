export * from './boot.ts';
export * from './config.ts';
export * from './faults.ts';
export * from './health.ts';
export * from './log.ts';
export * from './metrics.ts';
export * from './nest-log.ts';
export * from './supervised.ts';
