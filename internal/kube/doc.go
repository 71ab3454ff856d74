// Package kube is the one way in which the daemons reach the API server:
// credentials, served versions, get, list, create, patch and delete of small
// typed objects, and one resumable watch.
//
// It must not know what a ClientMount or a data movement means, nor anything
// about the machine; it turns API errors into text for an administrator and
// leaves decisions to its callers.
//
// # Why there is no Reflector
//
// client-go's rest client is used for requests (rate limit, Retry-After,
// status errors), below our own transport and above our own decoder. Its
// cache.Reflector is not used. By its source (v0.37.2, tools/cache/reflector.go)
// it lists again, instead of resuming, after every failure to connect other
// than "connection refused" and 429 (isWatchErrorRetriable), so after a reset,
// a time-out, a 503 or a TLS failure; after an ERROR event or an undecodable
// frame; and after a watch that ended within a second. With ten thousand nodes
// each of these is a storm of lists. The loop in watch.go lists only at the
// start and when the server says that our position is gone.
//
// The same choice makes the process smaller: with all of this package linked a
// stripped program is 10.4 MB, while client-go's transport, codecs, kubeconfig
// loading and Reflector alone made it 11.1 MB.
//
// # What costs nothing at idle
//
// A watch is one goroutine that sleeps in a read. HTTP/2 pings are off; the
// kernel's TCP keepalive and TCP_USER_TIMEOUT notice a dead connection instead,
// without waking the process. Token and CA files are looked at when a request
// is made, never by a timer.
package kube
