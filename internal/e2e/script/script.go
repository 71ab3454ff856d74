// Package script runs the test scripts of command lines. It provides commands and files
// for the scripts.
//
// It must not know the programs.
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

// Run runs the scripts in testdata with the commands of this package. Each script has the
// files token and ca.pem. With update it writes the golden files.
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

// RunText runs a script in txtar format that a test has composed, instead of those in params.Dir.
func RunText(t *testing.T, params testscript.Params, text string) {
	t.Helper()
	params.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(params.Dir, "composed.txtar"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, params)
}

// refused CODE ARGS...: the program must exit with the code, print nothing on standard
// output, and print one error on standard error, besides warnings, with or without a
// hint. The scripts check the texts with stderr and cmp.
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

// ends runs the program, which must exit with the code in front of its arguments.
func ends(ts *testscript.TestScript, program string, neg bool, args []string) (code int) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused|exits CODE ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	// Kill a program that does not exit.
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

const patience = 3 * time.Minute // only a program that hangs takes that long

// await FILE REGEXP: wait until the file, for example the log of a daemon in the
// background, matches.
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

// signal NAME: send the signal to the last background process.
func signal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || signals[args[0]] == nil || len(running) == 0 {
		ts.Fatalf("usage: signal HUP|INT|TERM|KILL, with a background process")
	}
	ts.Check(running[len(running)-1].Process.Signal(signals[args[0]]))
}

// Exits is the command exits CODE ARGS... of scripts: the program must exit with the
// code, and its standard error must be well-formed.
func Exits(program string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		code := ends(ts, program, neg, args)
		ts.Check(wellFormed(program, code, slices.Collect(strings.Lines(ts.ReadFile("stderr")))))
	}
}

// wellFormed checks the common form of standard error: each line starts with the name of
// the program, a hint follows an error, and there is an error for exit code 2.
func wellFormed(program string, code int, lines []string) error {
	before, failed := "", false
	for _, line := range lines {
		text, ok := strings.CutPrefix(line, program+": ")
		if !ok {
			return fmt.Errorf("a line without the program name: %s", line)
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

// usageCode is the exit code of all programs for a usage error.
const usageCode = 2

// socket PATH MODE: the socket exists with this mode, and a process listens on it.
// ! socket PATH: the path does not exist.
func socket(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if len(args) != 1 {
			ts.Fatalf("usage: ! socket PATH")
		}
		if _, err := os.Lstat(ts.MkAbs(args[0])); !os.IsNotExist(err) {
			ts.Fatalf("%s exists: %v", args[0], err)
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

// Authority returns a new CA certificate.
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

// Main is TestMain of a daemon. It makes the daemon and systemctl commands of the scripts.
// Each call is a separate process with the Machine of the script. The environment of a
// script is independent of that of the test.
func Main(m *testing.M, p *daemon.Program) {
	p.Service.Machine = Machine()
	testscript.Main(m, map[string]func(){
		p.Name:      func() { os.Exit(p.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) },
		"systemctl": Systemctl,
	})
}

// Machine returns the machine of a script for the service verbs: the directory $ROOT
// with a fake systemd, and the user $AS. Without them it has no rights, so that a test
// cannot change the real machine.
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

// Systemctl is the fake systemctl as a command of the scripts.
func Systemctl() {
	out, err := fakesystemd.Manager{Root: os.Getenv("ROOT")}.Run(context.Background(), "systemctl", os.Args[1:]...)
	fmt.Print(out)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
