/** The package is optional, and its own types are not where its package.json says: what is loaded is looked at, not believed. */
declare module 'tuntap2';
