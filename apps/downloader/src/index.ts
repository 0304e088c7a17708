export { CatalogController } from './catalog.controller.ts';
export { loadCatalog, type Catalog, type ClientProfile } from './catalog.ts';
export { CatalogError } from './errors.ts';
export { DownloaderController } from './downloader.controller.ts';
export { DownloaderModule, type DownloaderParts } from './downloader.module.ts';
