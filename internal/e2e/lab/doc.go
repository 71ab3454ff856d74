// Package lab is the place where a real daemon runs against a real API server
// and real mounts, on a machine without device mapper, NVMe, LVM or Lustre:
// a private mount and process namespace, loop devices in the role of logical
// volumes, stand-in programs with a log and faults, an API server, a proxy in
// front of it that breaks connections on purpose, and a daemon under watch.
//
// Nothing of the host changes and nothing survives: when the last process of
// the namespace ends, also by SIGKILL, the kernel takes down the rest.
//
// It serves tests, the demonstration and the benchmark. It must not know how
// the daemons do their work, so that it can judge what they did.
package lab
