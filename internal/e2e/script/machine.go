package script

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

// Main is TestMain of a daemon: it makes the daemon and systemctl commands of the
// scripts, so that each call is a process of its own, with the Machine of the
// script. The environment of a script holds nothing of ours.
func Main(m *testing.M, p *daemon.Program) {
	p.Service.Machine = Machine()
	testscript.Main(m, map[string]func(){
		p.Name:      func() { os.Exit(p.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) },
		"systemctl": Systemctl,
	})
}

// Machine is the one of a script for the verbs of the service: the folder $ROOT
// with a stand-in for systemd, and the user $AS. Without them it has no right to
// anything, so that a test can never change the machine that it runs on.
func Machine() systemd.Machine {
	root, as := os.Getenv("ROOT"), os.Getenv("AS")
	if root == "" {
		root, as = "/nonexistent", "nobody"
	}
	return systemd.Machine{
		Root: root,
		Run:  fakesystemd.Manager{Root: root}.Run,
		UID: func() int {
			if as == "root" {
				return 0
			}
			return 65534
		},
		Program: func(name string) (string, error) { return filepath.Join("/usr/bin", name), nil },
	}
}

// Systemctl is the stand-in as a command of the scripts.
func Systemctl() {
	out, err := fakesystemd.Manager{Root: os.Getenv("ROOT")}.Run(context.Background(), "systemctl", os.Args[1:]...)
	fmt.Print(out)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
