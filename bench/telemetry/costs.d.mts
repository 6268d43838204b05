/** The table of docs/opentelemetry.md, from the kept results. */
export declare function costsTable(): string
