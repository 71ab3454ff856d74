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

// Files in a cluster's directory that this package names.
const (
	addressFile = "address" // host:port of the API server
	serverLog   = "apiserver.log"

	rabbitFolder = "rabbit"
)

// stateEntries is all that a cluster keeps in its directory.
func stateEntries() []string {
	entries := []string{addressFile, serverLog, "etcd", "etcd.log", "pki", "admin.kubeconfig", rabbitFolder}
	for _, d := range provision.Daemons {
		entries = append(entries, d.Name)
	}
	return entries
}

func defineDown(flags *pflag.FlagSet) action {
	dir := flags.String("dir", "", "folder of the cluster")
	purge := flags.Bool("purge", false, "remove the cluster's state from the folder, and the folder when it is empty then")
	return func(_ context.Context, s streams, args []string) error {
		if *dir == "" || len(args) > 0 {
			return usageError("want --dir and no arguments")
		}
		return down(s, *dir, *purge)
	}
}

func down(s streams, dir string, purge bool) error {
	process, err := statedir.ReadProcess(dir)
	switch {
	case errors.Is(err, statedir.ErrNotRunning):
		s.progress("nothing runs on %s", dir)
	case err != nil:
		return err
	default:
		if err := process.Terminate(10 * time.Second); err != nil {
			return err
		}
		s.progress("process %d has ended", process.PID)
	}
	// Locking would make the directory; and a mistyped name should stay untouched.
	if _, err := os.Stat(filepath.Join(dir, "pki")); errors.Is(err, fs.ErrNotExist) {
		if purge {
			s.progress("no cluster's state in %s", dir)
		}
		return nil
	}
	held, err := statedir.Lock(dir) // clears what a killed process left
	if err != nil {
		return err
	}
	if purge {
		return held.Purge(stateEntries()...)
	}
	return held.Close()
}
