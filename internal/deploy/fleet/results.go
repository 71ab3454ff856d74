package fleet

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// A results file has one JSON object per line: first the head, which lists all nodes of the
// run, then one object for each finished node. The file of a run that was killed thus
// shows what the run has done.
const (
	resultsKind    = "nnf-deploy results"
	resultsVersion = 1
	resultsLine    = 32 << 20 // maximum length of a line in bytes; the head lists all nodes
	resultsText    = 4096     // maximum length in bytes of a cause or hint, which can come from a node
)

type resultsHead struct {
	Kind    string    `json:"kind"`
	Version int       `json:"version"`
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	Nodes   []string  `json:"nodes"`
}

type resultsNode struct {
	Node    string  `json:"node"`
	Result  State   `json:"result"`
	Failed  bool    `json:"failed"` // --failed repeats it
	Seconds float64 `json:"seconds"`
	Cause   string  `json:"cause,omitempty"`
	Hint    string  `json:"hint,omitempty"`
}

// ErrNoResults is the error for a file that is not a results file.
var ErrNoResults = errors.New("not a results file of nnf-deploy")

// ResultsFile is a results file that is being written.
type ResultsFile struct {
	path string
	f    *os.File
	good []State
	err  error
}

// CreateResults creates or replaces the results file at path, with mode 0600. It returns an
// error if the existing file is not a results file. command is the sub-command. Nodes with
// a state that is not in good count as failed.
func CreateResults(path, command string, nodes []string, good ...State) (*ResultsFile, error) {
	if err := replaceable(path); err != nil {
		return nil, err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	r := &ResultsFile{path: path, f: f, good: good}
	r.write(resultsHead{resultsKind, resultsVersion, command, time.Now().UTC().Truncate(time.Second), nodes})
	if r.err == nil {
		r.err = f.Sync()
	}
	if r.err == nil {
		r.err = os.Rename(temporary, path)
	}
	if r.err != nil {
		f.Close()
		os.Remove(temporary)
		return nil, r.err
	}
	return r, nil
}

// replaceable returns an error if the file at path must not be replaced.
func replaceable(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file, so it is not replaced", path)
	case info.Size() == 0:
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	first, err := bufio.NewReader(io.LimitReader(f, resultsLine)).ReadBytes('\n')
	head := resultsHead{}
	if err != nil || json.Unmarshal(first, &head) != nil || head.Kind != resultsKind {
		return fmt.Errorf("%s is not replaced: %w", path, ErrNoResults)
	}
	return nil
}

// Add writes the result of a node. Close returns the error, if there is one.
func (r *ResultsFile) Add(res Result) {
	r.write(resultsNode{
		Node: res.Node, Result: res.State, Failed: !slices.Contains(r.good, res.State), Seconds: math.Round(res.Time.Seconds()*1000) / 1000,
		Cause: text.Line(text.Cut(res.Cause, resultsText)), Hint: text.Line(text.Cut(res.Hint, resultsText)),
	})
}

func (r *ResultsFile) write(line any) {
	if r.err != nil {
		return
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if r.err = e.Encode(line); r.err == nil {
		_, r.err = r.f.Write(b.Bytes()) // in one call, so that no partial line is written
	}
}

// Close closes the file and returns the first error of all writes.
func (r *ResultsFile) Close() error {
	return errors.Join(r.err, r.f.Sync(), r.f.Close())
}

// Observe returns an observer that also adds each result to the file.
func (r *ResultsFile) Observe(o Observer) Observer { return &recording{o, r} }

type recording struct {
	Observer
	file *ResultsFile
}

func (r *recording) Finish(res Result) {
	r.file.Add(res)
	r.Observer.Finish(res)
}

// FailedIn reads the results file of a run of command, and returns the nodes that failed or
// were not started, in the order of that run.
func FailedIn(path, command string) ([]string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := safepath.CheckFile(path, info); err != nil {
		return nil, err
	}
	s := bufio.NewScanner(f)
	s.Buffer(nil, resultsLine)
	s.Split(wholeLines)
	var head resultsHead
	if !s.Scan() || json.Unmarshal(s.Bytes(), &head) != nil || head.Kind != resultsKind {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(ErrNoResults, s.Err()))
	}
	if head.Version != resultsVersion {
		return nil, fmt.Errorf("%s has version %d, but this nnf-deploy reads version %d", path, head.Version, resultsVersion)
	}
	if head.Command != command {
		return nil, fmt.Errorf("%s has the results of %.40q, not of %q", path, head.Command, command)
	}
	done := map[string]bool{}
	for number := 2; s.Scan(); number++ {
		var n resultsNode
		if err := json.Unmarshal(s.Bytes(), &n); err != nil || n.Node == "" {
			return nil, fmt.Errorf("%s:%d: the line is not the result of a node: %w", path, number, ErrNoResults)
		}
		done[n.Node] = !n.Failed
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return slices.DeleteFunc(head.Nodes, func(n string) bool { return done[n] }), nil
}

// wholeLines is bufio.ScanLines, but drops a last line without a line feed: the run was
// killed while it wrote that line.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if atEOF && !bytes.ContainsRune(data, '\n') {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}
