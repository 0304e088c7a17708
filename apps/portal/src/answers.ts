import type { InsideResponse } from '@sallyport/cluster';

/** Answers of the portal. What every answer carries besides (HSTS, framing …) is the edge's; none names software (S9). */

/** A document for VPN clients. */
export function xml(document: string, cookies: readonly string[]): InsideResponse {
  return {
    status: 200,
    headers: [
      ['Content-Type', 'text/xml; charset=utf-8'],
      ['X-Transcend-Version', '1'],
      ['X-Aggregate-Auth', '1'],
      ['Cache-Control', 'no-store'],
      ...cookies.map((cookie): [string, string] => ['Set-Cookie', cookie]),
    ],
    body: UTF8.encode(document),
  };
}

export function html(status: number, page: string): InsideResponse {
  return {
    status,
    headers: [
      ['Content-Type', 'text/html; charset=utf-8'],
      ['Cache-Control', 'no-store'],
    ],
    body: UTF8.encode(page),
    ...(status === 404 && { close: true }),
  };
}

export function methodNotAllowed(): InsideResponse {
  return { status: 405, headers: [['Allow', 'GET, POST, HEAD']], body: new Uint8Array(), close: true };
}

const page = (text: string) => `<!DOCTYPE html>\n<html lang="en"><title>VPN</title><p>${text}</p></html>\n`;
export const LANDING_PAGE = page('This is a VPN gateway. Connect to it with your VPN client.');
export const NOT_FOUND_PAGE = page('There is nothing here.');

const UTF8 = new TextEncoder();
