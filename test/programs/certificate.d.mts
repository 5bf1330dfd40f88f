export function certificate(): { key: Buffer; cert: Buffer }
