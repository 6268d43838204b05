/** The style of the page, in light and dark. */
export const STYLE = `
:root{color-scheme:light dark;--text:#1c2230;--soft:#5b6476;--line:#dde2ea;--back:#f5f7fa;--card:#fff;--link:#1257b8;--code:#eef1f6;--param:#8a3ffc;--receive:#0b7a4b;--send:#1257b8;--request:#8a4b00}
@media(prefers-color-scheme:dark){:root{--text:#e6e9ef;--soft:#9aa4b8;--line:#2f3747;--back:#12161e;--card:#1a202b;--link:#7db3ff;--code:#242c3a;--param:#c7a3ff;--receive:#4cc38a;--send:#7db3ff;--request:#f0b35a}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header>div{max-width:60rem;margin:0 auto;padding:0 1.25rem}
header{background:var(--card);border-bottom:1px solid var(--line);padding:1.75rem 0 1.25rem}
h1{font-size:1.75rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h1 small{font-size:.875rem;font-weight:500;color:var(--soft);border:1px solid var(--line);border-radius:1rem;padding:.1rem .6rem;margin-left:.5rem;vertical-align:middle;white-space:nowrap}
h2{font-size:1.125rem;margin:2rem 0 .75rem}
h3{font:600 1.0625rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0;overflow-wrap:anywhere}
h3 a{color:inherit;text-decoration:none}
h3 a:hover{text-decoration:underline}
h3 b{color:var(--param);font-weight:600}
a{color:var(--link)}
p{margin:.5rem 0 0;white-space:pre-line;overflow-wrap:anywhere}
.soft,dt{color:var(--soft);font-size:.875rem}
code{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);border-radius:.25rem;padding:.1em .35em;overflow-wrap:anywhere}
article,.server{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem 1.25rem;margin:0 0 1rem;content-visibility:auto;contain-intrinsic-size:auto 16rem}
.servers{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
.server{margin:0;content-visibility:visible}
.links{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin-top:.75rem;font-size:.9375rem}
form{display:flex;flex-wrap:wrap;gap:.5rem;margin:0 0 1rem}
input{flex:1 1 14rem;min-width:0;font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:.375rem;padding:.4rem .7rem}
button{font:inherit;color:inherit;background:var(--code);border:1px solid var(--line);border-radius:.375rem;padding:.4rem .9rem;cursor:pointer}
section{border-top:1px solid var(--line);margin:1rem -1.25rem 0;padding:1rem 1.25rem 0}
.title{display:flex;flex-wrap:wrap;align-items:center;gap:.375rem .625rem}
.badge{font-size:.75rem;font-weight:700;letter-spacing:.04em;text-transform:uppercase;border:1px solid;border-radius:.25rem;padding:.05rem .45rem}
.receive{color:var(--receive)}.send{color:var(--send)}.request{color:var(--request)}
.chip{font-size:.8125rem;color:var(--soft);background:var(--code);border-radius:.25rem;padding:.1rem .5rem}
.name{font-weight:600;overflow-wrap:anywhere}
h4{font-size:.875rem;margin:.875rem 0 .25rem;color:var(--soft);font-weight:600}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.25rem 1rem;margin:.5rem 0 0}
dd{margin:0;overflow-wrap:anywhere}
ul.schema{list-style:none;margin:.25rem 0 0;padding:0;border-left:2px solid var(--line)}
ul.schema li{padding:.25rem 0 .25rem .875rem}
ul.schema p{margin:0;font-size:.9375rem;color:var(--soft)}
.type{color:var(--soft);font-size:.875rem}
.must{color:var(--request);font-size:.75rem;font-weight:600}
.plain{padding:.25rem 0 0}
nav{display:flex;justify-content:space-between;gap:1rem;margin:1rem 0}
footer{color:var(--soft);font-size:.875rem;margin:2rem 0}
@media(max-width:32rem){body{font-size:15px}h1{font-size:1.4rem}article,.server{padding:.875rem}section{margin-inline:-.875rem;padding-inline:.875rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.375rem}}
`
