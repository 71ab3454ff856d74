package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/provision"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// Entries of the cluster directory that this package creates.
const (
	addressFile = "address" // host:port of the API server
	serverLog   = "apiserver.log"
	joinedLog   = "joined.log" // of the further API server that was started last
	etcdSocket  = "etcd.sock"

	rabbitDir = "rabbit"
)

// stateEntries returns all entries of the cluster directory.
func stateEntries() []string {
	entries := []string{addressFile, serverLog, joinedLog, "etcd", "etcd.log", "pki", "admin.kubeconfig", rabbitDir}
	for _, d := range provision.Daemons {
		entries = append(entries, d.Name)
	}
	return entries
}

func defineDown(flags *pflag.FlagSet) action {
	dir := flags.String("dir", "", "directory of the cluster")
	purge := flags.Bool("purge", false, "delete the state of the cluster, and the directory if it is then empty")
	return func(_ context.Context, s streams, args []string) error {
		if *dir == "" || len(args) > 0 {
			return usageError("--dir is required, and arguments are not accepted")
		}
		return down(s, *dir, *purge)
	}
}

func down(s streams, dir string, purge bool) error {
	process, err := statedir.ReadProcess(dir)
	switch {
	case errors.Is(err, statedir.ErrNotRunning):
		s.progress("no cluster is running in %s", dir)
	case err != nil:
		return err
	default:
		if err := process.Terminate(10 * time.Second); err != nil {
			return err
		}
		s.progress("process %d has exited", process.PID)
	}
	// Lock would create the directory, even for a mistyped path.
	if _, err := os.Stat(filepath.Join(dir, "pki")); errors.Is(err, fs.ErrNotExist) {
		if purge {
			s.progress("no cluster state in %s", dir)
		}
		return nil
	}
	held, err := statedir.Lock(dir) // removes the files of a killed process
	if err != nil {
		return err
	}
	if purge {
		return held.Purge(stateEntries()...)
	}
	return held.Close()
}
