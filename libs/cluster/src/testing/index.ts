/** Real servers and samples for the tests of other projects: not part of the product. */
export * from '../broker.fake.ts';
export * from '../redis-server.fake.ts';
export * from '../session.fake.ts';
export * from '../event-sink.fake.ts';
