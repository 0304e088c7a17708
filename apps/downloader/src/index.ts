export { CatalogController } from './catalog.controller.ts';
export { loadCatalog, type Catalog, type ClientProfile } from './catalog.ts';
export { CatalogError } from './errors.ts';
export { DownloaderController } from './downloader.controller.ts';
export {
  DownloaderModule,
  openDownloader,
  type DownloaderOptions,
  type DownloaderParts,
  type OpenDownloader,
} from './downloader.module.ts';
