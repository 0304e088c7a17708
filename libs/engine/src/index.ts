export * from './create.ts';
export * from './device.memory.ts';
export * from './engine.ts';
export * from './host.ts';
export * from './portable.ts';
export * from './preflight.ts';
export * from './return-path.ts';
