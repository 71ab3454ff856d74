// Package offload is the conformance suite of nnf-dm: every row of its contract
// is played as a scene with the real daemon, its real account and its rights, a
// real API server, and callers whom the kernel knows by other identities. What
// holds for one type of file system holds for gfs2 and Lustre, so scenes are
// played for both; what both versions of the protocol answer is asked of both.
//
// The rabbit's part is mostly played by the tests, which write the statuses that
// a rabbit would write: so its rarest states are as near as its usual ones. The
// last act has a stand-in for the rabbit that really copies.
//
// It must not know how the daemon does its work: it sees the socket, the API
// server and what passes between them, and the process's end.
package offload
