// Package script is what the test scripts of the daemons' command lines have in
// common: commands that a script may use, and files that it finds.
//
// It must not know what a daemon does.
package script

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

// Run runs the scripts of testdata with the commands of this package. Each finds
// a token and ca.pem. update writes what is compared.
func Run(t *testing.T, program string, update bool) {
	t.Helper()
	authority := Authority(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for name, data := range map[string][]byte{"ca.pem": authority, "token": []byte("a.b.c\n")} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "journal" {
				return false, errors.New("unknown condition " + name)
			}
			_, err := os.Stat("/run/systemd/journal/socket")
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused": refused(program), "await": await, "signal": signal, "socket": socket,
		},
	})
}

// refused CODE ARGS...: the program must end with that code, say nothing on
// standard output, and on standard error one error besides warnings, with a hint or
// without. The scripts look at the words with stderr and cmp.
func refused(program string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		code := ends(ts, program, neg, args)
		if out := ts.ReadFile("stdout"); out != "" {
			ts.Fatalf("standard output: %s", out)
		}
		errs := 0
		var said []string
		for line := range strings.Lines(ts.ReadFile("stderr")) {
			if strings.HasPrefix(line, program+": error: ") {
				errs++
			}
			if !strings.Contains(line, "level=WARN") {
				said = append(said, line)
			}
		}
		ts.Check(wellFormed(program, code, said))
		if errs != 1 {
			ts.Fatalf("%d errors, want one", errs)
		}
	}
}

// ends runs the program, which must end with the code that comes before its arguments.
func ends(ts *testscript.TestScript, program string, neg bool, args []string) (code int) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused|exits CODE ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	// One that keeps running although it should end must not do so for ever.
	err = ts.Exec("timeout", append([]string{strconv.Itoa(int(patience.Seconds())), program}, args[1:]...)...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	return code
}

const patience = 30 * time.Second

// await FILE REGEXP: until the file, the log of a daemon in the background,
// has it.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var data []byte
	err = wait.For(ctx, strconv.Quote(args[1]), func() (bool, error) {
		var err error
		data, err = os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && want.Match(data), nil
	})
	if err != nil {
		ts.Fatalf("%v: %s", err, data)
	}
}

// signal NAME: send it to the last process that went into the background.
func signal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || signals[args[0]] == nil || len(running) == 0 {
		ts.Fatalf("usage: signal HUP|INT|TERM|KILL, with a process in the background")
	}
	ts.Check(running[len(running)-1].Process.Signal(signals[args[0]]))
}

// Exits is the command of scripts for programs that end by themselves. exits CODE
// ARGS...: the program must end with that code. What it writes to standard error
// has the form of every program.
func Exits(program string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		code := ends(ts, program, neg, args)
		ts.Check(wellFormed(program, code, slices.Collect(strings.Lines(ts.ReadFile("stderr")))))
	}
}

// wellFormed checks the form that all programs have in common: each line starts
// with the program's name, a hint follows its error, and a wrong command line (2)
// has an error.
func wellFormed(program string, code int, lines []string) error {
	before, failed := "", false
	for _, line := range lines {
		text, ok := strings.CutPrefix(line, program+": ")
		if !ok {
			return fmt.Errorf("a line without the program's name: %s", line)
		}
		if strings.HasPrefix(text, "hint: ") && !strings.HasPrefix(before, "error: ") {
			return fmt.Errorf("a hint without an error: %s", line)
		}
		failed = failed || strings.HasPrefix(text, "error: ")
		before = text
	}
	if code == usageCode && !failed {
		return fmt.Errorf("exit code %d without an error: %q", code, lines)
	}
	return nil
}

// usageCode is the exit code of every program for a wrong command line.
const usageCode = 2

// socket PATH MODE: there is a socket with these permissions, and a process
// listens. ! socket PATH: nothing is there at all.
func socket(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if len(args) != 1 {
			ts.Fatalf("usage: ! socket PATH")
		}
		if _, err := os.Lstat(ts.MkAbs(args[0])); !os.IsNotExist(err) {
			ts.Fatalf("%s is there: %v", args[0], err)
		}
		return
	}
	if len(args) != 2 {
		ts.Fatalf("usage: socket PATH MODE")
	}
	mode, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode() != os.ModeSocket|os.FileMode(mode) {
		ts.Fatalf("%s is %v", args[0], info.Mode())
	}
	c, err := net.Dial("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	c.Close()
}

// Authority returns a CA certificate whose key is thrown away.
func Authority(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"}, IsCA: true,
		NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

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

// Machine is the one of a script for the verbs of the service: the directory $ROOT
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
