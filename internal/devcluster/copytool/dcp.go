package copytool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// dcpOptions has the options that have an effect. Other options of dcp are accepted
// and ignored; unknown options are errors.
type dcpOptions struct {
	uid, gid          int
	progress          int // seconds between two lines; 0: no lines
	preserve, noDeref bool
	rate              int64 // bytes per second; 0: no limit
	exit              int   // exit code of the injected failure; 0: no failure
	sources           []string
	destination       string
}

func parseDcp(args []string, getenv func(string) string) (dcpOptions, error) {
	o := dcpOptions{uid: -1, gid: -1}
	flags := pflag.NewFlagSet("dcp", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVarP(&o.uid, "uid", "U", -1, "copy as this user")
	flags.IntVarP(&o.gid, "gid", "G", -1, "copy as this group")
	flags.IntVar(&o.progress, "progress", 10, "seconds between progress lines")
	flags.BoolVarP(&o.preserve, "preserve", "p", false, "keep times")
	flags.BoolVarP(&o.noDeref, "no-dereference", "P", true, "copy links as links; always on")
	for _, ignored := range []struct{ name, short string }{{"sparse", "S"}, {"direct", "s"}, {"verbose", "v"}, {"quiet", "q"}, {"open-noatime", ""}} {
		flags.BoolP(ignored.name, ignored.short, false, "ignored")
	}
	for _, ignored := range []struct{ name, short string }{{"bufsize", "b"}, {"chunksize", "k"}, {"xattrs", "X"}} {
		flags.StringP(ignored.name, ignored.short, "", "ignored")
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	paths := flags.Args()
	if len(paths) < 2 {
		return o, errors.New("a source and a destination are required")
	}
	o.sources, o.destination = paths[:len(paths)-1], paths[len(paths)-1]
	var err error
	if text := getenv(RateVariable); text != "" {
		if o.rate, err = strconv.ParseInt(text, 10, 64); err != nil {
			return o, fmt.Errorf("%s: %w", RateVariable, err)
		}
	}
	if text := getenv(ExitVariable); text != "" {
		if o.exit, err = strconv.Atoi(text); err != nil {
			return o, fmt.Errorf("%s: %w", ExitVariable, err)
		}
	}
	return o, nil
}

// errInjected is the injected failure.
var errInjected = errors.New("injected failure")

func dcp(args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	o, err := parseDcp(args, getenv)
	if err == nil {
		err = becomeUser(o.uid, o.gid)
	}
	if err != nil {
		fmt.Fprintf(stderr, "dcp: %v\n", err)
		return 1
	}
	say := newReport(stdout, time.Now, time.Duration(o.progress)*time.Second)
	err = copyAll(o, say)
	switch {
	case errors.Is(err, errInjected):
		fmt.Fprintf(stderr, "[%s] ERROR: %v\n", time.Now().Format("2006-01-02T15:04:05"), err)
		return o.exit
	case err != nil:
		fmt.Fprintf(stderr, "[%s] ERROR: %v\n", time.Now().Format("2006-01-02T15:04:05"), err)
		return 1
	}
	say.end()
	return 0
}

// becomeUser changes the user and group of all threads and drops the supplementary
// groups. Without root it can only keep the current user.
func becomeUser(uid, gid int) error {
	if os.Getuid() == 0 && uid > 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("drop groups: %w", err)
		}
	}
	if gid >= 0 && gid != os.Getgid() {
		if err := syscall.Setresgid(gid, gid, gid); err != nil {
			return fmt.Errorf("become group %d: %w", gid, err)
		}
	}
	if uid >= 0 && uid != os.Getuid() {
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return fmt.Errorf("become user %d: %w", uid, err)
		}
	}
	return dieWithParent() // changing the user resets it
}

func copyAll(o dcpOptions, say *report) error {
	c := copier{options: o, say: say}
	for _, source := range o.sources {
		if err := c.measure(source); err != nil {
			return err
		}
	}
	into := false
	if info, err := os.Stat(o.destination); err == nil {
		into = info.IsDir()
	}
	if len(o.sources) > 1 && !into {
		return fmt.Errorf("%s is not a directory", o.destination)
	}
	for _, source := range o.sources {
		to := o.destination
		// "dir/" copies the contents of dir, "dir" the directory itself.
		if into && !strings.HasSuffix(source, "/") {
			to = filepath.Join(to, filepath.Base(source))
		}
		if err := c.tree(filepath.Clean(source), filepath.Clean(to)); err != nil {
			return err
		}
	}
	return c.halfway() // for an empty tree
}
