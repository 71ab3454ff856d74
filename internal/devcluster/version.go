package main

import (
	"fmt"
	"runtime/debug"
)

// version names the parts that matter. They come from the build's module list:
// a linker variable would make every change of it a new binary.
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
