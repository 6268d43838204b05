/** Where the dashboard is. */
export declare const FILE: URL

/** The content of the file. */
export declare function dashboardText(): string
