// The part of the kit that needs no other package.
export * from "./answers.js";
export { Api, Routes, type CallOptions, type ExitFilter } from "./api.js";
export { Bridge } from "./bridge.js";
export { ApiError, BadRequest, BadSelector, Denied, ExitFailed, ExitgateError, GatewayError, KeyRefused, LimitReached, NoExit, NotFound, NotReady, SiteRefused, TargetFailed, TimedOut, TokenRefused, Unreachable, type Failure } from "./errors.js";
export { Gateway, type CurrentExit, type GatewayOptions, type Moved, type ProxyUrlOptions, type Reported, type Seen, type SelectOptions } from "./gateway.js";
export { identity, type Identity } from "./country.js";
export { type Choice } from "./selector.js";
export { type ExitInfo, type Tunnel } from "./tunnel.js";
