/** Where the server listens: TCP (IPv4 or IPv6, numeric or a name) or a Unix socket; with TLS or without. */
export type Target =
  | { readonly host: string; readonly port: number; readonly tls?: boolean; readonly ciphers?: string }
  | { readonly path: string; readonly tls?: boolean; readonly ciphers?: string }
