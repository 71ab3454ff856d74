package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// A system call on a file system whose server or device does not respond may never
// return, and no signal interrupts it. A thread of the daemon in that call would prevent the
// daemon from exiting. A child process therefore carries out operations that may use one of
// these file systems: this program again, started like any other command, with the same
// time limit.

// childSuffix is the suffix of the name of the child, as ps shows it. Together with
// childReport in the environment it identifies a child.
const childSuffix = "-child"

// childReport is the environment variable with the number of the descriptor for the reply.
const childReport = "NODE_CHILD_REPORT_FD"

// childInput and childOutput bound a request and its reply, in bytes.
const (
	childInput  = 32 << 20
	childOutput = 1 << 20
)

// childReady is set if this program can be started as a child.
var childReady atomic.Bool

func isChild() bool {
	return len(os.Args) == 3 && strings.HasSuffix(os.Args[0], childSuffix) && os.Getenv(childReport) != ""
}

// The main thread does the work of a child: a process whose main thread has exited looks
// as if it had exited, even if another thread still hangs.
func init() {
	if isChild() {
		runtime.LockOSThread()
	}
}

// RunChild must be the first call of main in every program that uses a Node. If the
// program was started as a child, RunChild does the child's work and does not return.
func RunChild() {
	if !isChild() {
		childReady.Store(true)
		return
	}
	if err := runChild(os.Args[1], os.Args[2], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(op, path string, in io.Reader) error {
	fd, err := strconv.Atoi(os.Getenv(childReport))
	if err != nil || fd <= 2 {
		return fmt.Errorf("%s does not name a descriptor", childReport)
	}
	var r request
	d := json.NewDecoder(io.LimitReader(in, childInput))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return fmt.Errorf("cannot read the request: %w", err)
	}
	r.Op, r.Path = op, path
	n := &Node{Root: r.Root, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	paths, err := n.perform(r)
	text, err := json.Marshal(reply{Paths: paths, Error: failureOf(err)})
	if err != nil {
		return err
	}
	_, err = os.NewFile(uintptr(fd), "reply").Write(text)
	return err
}

// The names of the operations are what ps shows.
const (
	opChown         = "chown"
	opMakeDirectory = "mkdir"
	opMakeFile      = "mkfile"
	opMissing       = "look"
	opRemoveTarget  = "remove"
	opResolve       = "resolve"
	opWriteFile     = "write"
)

// request is one operation on a mount target or on the root of a mounted file system.
type request struct {
	Op   string `json:"-"` // an argument of the child
	Path string `json:"-"` // an argument of the child

	Root    string   `json:"root,omitempty"`
	MountID int      `json:"mountID,omitempty"`
	UID     uint32   `json:"uid,omitempty"`
	GID     uint32   `json:"gid,omitempty"`
	Created []string `json:"created,omitempty"`
	Name    string   `json:"name,omitempty"`
	Data    []byte   `json:"data,omitempty"`
}

type reply struct {
	Paths []string `json:"paths,omitempty"`
	Error *failure `json:"error,omitempty"`
}

// perform carries out the request in this process.
func (n *Node) perform(r request) ([]string, error) {
	switch r.Op {
	case opChown:
		return nil, n.chown(r.Path, r.MountID, r.UID, r.GID)
	case opMakeDirectory:
		return n.makeDirectory(r.Path)
	case opMakeFile:
		return n.makeFile(r.Path)
	case opMissing:
		return n.missingTargets(r.Path), nil
	case opResolve:
		real, err := n.resolveTarget(r.Path)
		if err != nil {
			return nil, err
		}
		return []string{real}, nil
	case opRemoveTarget:
		return n.removeTarget(r.Path, r.Created)
	case opWriteFile:
		return nil, n.writeFileIn(r.Path, r.Name, r.Data, r.UID, r.GID)
	}
	return nil, fmt.Errorf("%q is not a known operation", r.Op)
}

// errMayBlock is returned by an operation that finds something that carryOut could not
// detect: a symlink to a file system that may not respond. The operation has changed
// nothing.
var errMayBlock = errors.New("the path leads through a file system that may not respond")

// carryOut carries out the request in this process if no file system of the path can
// block, otherwise in a child.
func (n *Node) carryOut(r request) ([]string, error) {
	way := r.Path
	if r.Op == opResolve {
		way = filepath.Dir(way) // it does not touch a mount at the path itself
	}
	if safepath.CheckPath(r.Path) != nil || !n.mayBlock(way) {
		if paths, err := n.perform(r); err != errMayBlock {
			return paths, err
		}
	}
	if !childReady.Load() {
		return nil, fmt.Errorf("cannot %s %s: this program does not call node.RunChild", r.Op, r.Path)
	}
	r.Root = n.Root
	in, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(in) > childInput {
		return nil, fmt.Errorf("cannot %s %s: a request of %d bytes is too large", r.Op, r.Path, len(in))
	}
	res, err := n.Run(n.context(), Command{
		Program: "/proc/self/exe", Argv: []string{filepath.Base(os.Args[0]) + childSuffix, r.Op, r.Path},
		Input: in, Report: childReport, Timeout: n.caller.Limit, Capture: childOutput,
	})
	if err != nil {
		return nil, err
	}
	if res.Stderr != "" {
		n.log().Warn("a child process printed messages", "command", r.Op, "path", r.Path, "output", oneLine(res.Stderr))
	}
	var out reply
	if err := json.Unmarshal([]byte(res.Report), &out); err != nil {
		return nil, fmt.Errorf("cannot %s %s: the child process returned no reply: %w", r.Op, r.Path, err)
	}
	if out.Error == nil {
		return out.Paths, nil
	}
	return out.Paths, out.Error
}

// inMemory lists the types of file systems that need neither a server nor a device.
var inMemory = []string{"tmpfs", "devtmpfs", "ramfs"}

// mayBlock reports whether a walk to and through path uses a file system that may not
// respond: any that is mounted at path or above it, except the root file system, from
// which this program runs, and file systems in memory. It reads only the mount table. If
// the table cannot be read, it returns true.
func (n *Node) mayBlock(path string) bool {
	table, err := n.mounts(func(at string) bool { return safepath.Within(path, at) })
	return err != nil || passes(table, path)
}

// passes reports whether path leads through a mount in table that may block.
func passes(table []Mount, path string) bool {
	return slices.ContainsFunc(table, func(m Mount) bool {
		return m.Mountpoint != "/" && safepath.Within(path, m.Mountpoint) && !slices.Contains(inMemory, m.FSType)
	})
}

// failure is an error of a child: its text, and the identities for errors.Is.
type failure struct {
	Text  string   `json:"text"`
	Errno int      `json:"errno,omitempty"`
	Is    []string `json:"is,omitempty"`
}

// identities are the errors for which callers use errors.Is, besides those of the kernel.
var identities = map[string]error{
	"symlink": safepath.ErrSymlink, "unsafe": safepath.ErrUnsafe, "path": safepath.ErrBadPath,
	"exists": fs.ErrExist, "missing": fs.ErrNotExist,
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		f.Errno = int(errno)
	}
	for name, is := range identities {
		if errors.Is(err, is) {
			f.Is = append(f.Is, name)
		}
	}
	return f
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Unwrap() []error {
	var all []error
	if f.Errno != 0 {
		all = append(all, unix.Errno(f.Errno))
	}
	for _, name := range f.Is {
		if err := identities[name]; err != nil {
			all = append(all, err)
		}
	}
	return all
}
