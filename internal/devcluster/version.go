package main

import (
	"fmt"
	"runtime/debug"
)

// version returns the versions of Kubernetes and etcd, from the module list of the
// build. A linker variable would change the binary with each commit.
func version() string {
	kubernetes, etcd := "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "k8s.io/kubernetes":
				kubernetes = m.Version
			case "go.etcd.io/etcd/server/v3":
				etcd = m.Version
			}
		}
	}
	return fmt.Sprintf("devcluster (Kubernetes %s, etcd %s)", kubernetes, etcd)
}
