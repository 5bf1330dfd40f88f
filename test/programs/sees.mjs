/** As sees.cjs, as a module. */
import sees from './sees.cjs'

await sees.see('module', { url: import.meta.url, isMain: import.meta.main ?? null, filename: import.meta.filename })
