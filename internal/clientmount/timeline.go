package clientmount

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// stepLog has the steps of the life of a ClientMount.
type stepLog struct {
	Steps   []mountstate.Step `json:"steps,omitempty"`
	Dropped int               `json:"dropped,omitempty"` // steps that did not fit
}

// Bounds of a stepLog. A life with 16 mounts and a few hooks has about 150 steps.
const (
	stepLimit      = 256
	stepErrorLimit = 300 // bytes
)

// stepKinds are the kinds of planned steps that are reported, in the order of the metrics.
// plan.ServersFile is not one of them, because the file is written after the mount and its failure
// is not one of the mount.
var stepKinds = [...]struct {
	kind     plan.Kind
	timeline string // kind in the timeline
	metrics  bool   // the links of test clusters, at the end, have no metrics
}{
	{plan.Hook, mountstate.StepHook, true},
	{plan.WaitVG, mountstate.StepWait, true},
	{plan.LockStart, mountstate.StepActivate, true},
	{plan.Activate, mountstate.StepActivate, true},
	{plan.WaitDevice, mountstate.StepWait, true},
	{plan.Mount, mountstate.StepMount, true},
	{plan.Chown, mountstate.StepMount, true},
	{plan.Unmount, mountstate.StepMount, true},
	{plan.Deactivate, mountstate.StepActivate, true},
	{plan.LockStop, mountstate.StepActivate, true},
	{plan.Link, mountstate.StepMount, false},
	{plan.Unlink, mountstate.StepMount, false},
}

// stepIndex returns the index of a kind in stepKinds, or -1.
func stepIndex(kind plan.Kind) int {
	for i := range stepKinds {
		if stepKinds[i].kind == kind {
			return i
		}
	}
	return -1
}

// add adds a step that has ended. A repetition in the same phase becomes part of the first try.
func (l *stepLog) add(path, phase, kind, name string, started time.Time, err error) {
	now := time.Now()
	step := mountstate.Step{
		Path: path, Phase: phase, Kind: kind, Name: name, Started: started, Finished: now, Seconds: now.Sub(started).Seconds(), Tries: 1,
	}
	if err != nil {
		step.Failed, step.Error = true, text.Line(text.Shorten(err.Error(), stepErrorLimit))
	}
	for i := range slices.Backward(l.Steps) {
		old := &l.Steps[i]
		if old.Path != path {
			continue
		}
		if old.Phase != phase {
			break
		}
		if old.Name == name {
			step.Started, step.Seconds, step.Tries = old.Started, step.Seconds+old.Seconds, old.Tries+1
			if step.Error == "" {
				step.Error = old.Error
			}
			*old = step
			return
		}
	}
	if len(l.Steps) >= stepLimit {
		l.Dropped++
		return
	}
	l.Steps = append(l.Steps, step)
}

// life returns the life of the ClientMount of a record. ended is nil while the record exists.
func (r *Record) life(ended *time.Time) mountstate.Life {
	return mountstate.Life{
		ClientMount: r.Name, UID: r.UID, Workflow: r.Workflow, Started: r.Created, Ready: r.Ready, Ended: ended,
		Steps: slices.Clone(r.Steps), Dropped: r.Dropped,
	}
}

// HistoryLimits bound the file of past lives. If either is 0, no life is kept.
type HistoryLimits struct {
	Lives int // ClientMounts
	Bytes int
}

// history is the file of past lives, one JSON document per line, oldest first. It is written when
// the record of a ClientMount is removed.
type history struct {
	path   string
	mu     sync.Mutex
	limits HistoryLimits
	lives  int // in the file; -1: unknown
	bytes  int64
	// damaged means that the file has something else than complete lives, so that it is written
	// again rather than extended.
	damaged bool
}

// pastLife is a line of the file.
type pastLife struct {
	Version int `json:"version"`
	mountstate.Life
}

// historyVersion is the version of the layout of a line. Lines of a newer one are skipped.
const historyVersion = 1

const historyName = "history.jsonl"

func newHistory(runtimeDir string, limits HistoryLimits) *history {
	return &history{path: filepath.Join(runtimeDir, historyName), limits: limits, lives: -1}
}

// add appends a life. If the file is full, it drops the oldest quarter first.
func (h *history) add(life mountstate.Life) error {
	if h == nil || h.limits.Lives == 0 || h.limits.Bytes == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	line, err := json.Marshal(pastLife{historyVersion, life})
	if err != nil {
		return err
	}
	if limit := h.limits.Bytes / 4; len(line) >= limit {
		life.Dropped, life.Steps = life.Dropped+len(life.Steps), nil
		if line, err = json.Marshal(pastLife{historyVersion, life}); err != nil || len(line) >= h.limits.Bytes {
			return err
		}
	}
	line = append(line, '\n')
	if h.lives < 0 {
		if err := h.count(); err != nil {
			return err
		}
	}
	if h.damaged || h.lives+1 > h.limits.Lives || h.bytes+int64(len(line)) > int64(h.limits.Bytes) {
		if err := h.shrink(len(line)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot save the history: %w", err)
	}
	_, err = f.Write(line)
	if err = errors.Join(err, f.Close()); err != nil {
		h.lives = -1 // count again: part of the line may be in the file
		return fmt.Errorf("cannot save the history: %w", err)
	}
	h.lives++
	h.bytes += int64(len(line))
	return nil
}

// count reads how much is in the file. A file that cannot be used is written again.
func (h *history) count() error {
	lives, size, damaged, err := readHistory(h.path)
	if errors.Is(err, errForeignFile) {
		damaged, err = true, nil
	}
	if err != nil {
		return err
	}
	h.lives, h.bytes, h.damaged = len(lives), size, damaged
	return nil
}

// shrink keeps the newest lives, at most three quarters of the limits, so that more bytes fit.
func (h *history) shrink(more int) error {
	lives, _, _, err := readHistory(h.path)
	if err != nil && !errors.Is(err, errForeignFile) {
		return err
	}
	var lines [][]byte // the newest first
	room := h.limits.Bytes*3/4 - more
	for i := len(lives) - 1; i >= 0 && len(lines) < h.limits.Lives*3/4; i-- {
		line, err := json.Marshal(pastLife{historyVersion, lives[i]})
		if err != nil || len(line)+1 > room {
			break
		}
		room -= len(line) + 1
		lines = append(lines, append(line, '\n'))
	}
	slices.Reverse(lines)
	data := bytes.Join(lines, nil)
	if err := replaceFile(h.path, data, nil); err != nil {
		return fmt.Errorf("cannot save the history: %w", err)
	}
	h.lives, h.bytes, h.damaged = len(lines), int64(len(data)), false
	return nil
}

// historyReadLimit bounds the size of a file that is read, in bytes.
const historyReadLimit = 64 << 20

// readHistory returns the lives in a file and its size. It skips lines that are not complete,
// because the daemon may have been killed while it wrote them, and those of a newer version; then
// damaged is true. Without a file there are no lives.
func readHistory(path string) (lives []mountstate.Life, size int64, damaged bool, err error) {
	data, err := readOwnFile(path, historyReadLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("the history cannot be read: %w", err)
	}
	for line := range bytes.Lines(data) {
		var past pastLife
		whole := bytes.HasSuffix(line, []byte("\n"))
		if !whole || json.Unmarshal(line, &past) != nil || past.Version > historyVersion || past.UID == "" {
			damaged = true
			continue
		}
		lives = append(lives, past.Life)
	}
	return lives, int64(len(data)), damaged, nil
}

// ReadTimeline returns the past lives and those in the records below a runtime directory, in the
// order of their start. It works without the daemon and touches no mount.
func ReadTimeline(runtimeDir string) (*mountstate.Timeline, error) {
	doc := &mountstate.Timeline{Version: mountstate.TimelineVersion, Time: time.Now(), Lives: []mountstate.Life{}}
	// The records first: a life whose record is removed meanwhile is then in the history as well.
	records, _, err := readAllRecords(runtimeDir)
	if err != nil {
		return nil, err
	}
	past, _, _, err := readHistory(filepath.Join(runtimeDir, historyName))
	if err != nil {
		return nil, err
	}
	doc.Lives = append(doc.Lives, past...)
	for _, r := range records {
		if !slices.ContainsFunc(past, func(l mountstate.Life) bool { return l.UID == r.UID && l.Started.Equal(r.Created) }) {
			doc.Lives = append(doc.Lives, r.life(nil))
		}
	}
	for i := range doc.Lives {
		if life := &doc.Lives[i]; life.Steps == nil {
			life.Steps = []mountstate.Step{}
		}
	}
	slices.SortStableFunc(doc.Lives, func(a, b mountstate.Life) int { return a.Started.Compare(b.Started) })
	state, err := readDaemonState(runtimeDir)
	if err != nil {
		return nil, err
	}
	doc.Node = state.Node
	return doc, nil
}
