/** The requests of this process since it began, on all its servers, open or closed. `failed`: answered with a status of 500 or more. */
export const requestCounts = { total: 0, failed: 0 }
