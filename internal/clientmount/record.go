package clientmount

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// recordVersion is the version of the layout of a record. A daemon reads this version
// and older ones. It reports a newer one and does not change the file.
const recordVersion = 1

// recordLimit bounds the size of a record in bytes, both for Save and for Load.
const recordLimit = 4 << 20

// recordSuffix is the suffix of the file of a record.
const recordSuffix = ".json"

// tempSuffix is the suffix of a record that is being written.
const tempSuffix = ".new"

// Record lists what was started for one ClientMount, so that it survives a crash of the
// daemon. It is written before the first effect and removed after the last one. It is in
// the runtime directory, so a reboot removes it together with the mounts.
type Record struct {
	Version   int           `json:"version"`
	Name      string        `json:"name"`
	Namespace string        `json:"namespace"`
	UID       string        `json:"uid"`
	Workflow  string        `json:"workflow,omitempty"`
	Created   time.Time     `json:"created"`
	Mounts    []MountRecord `json:"mounts"`

	// The following fields are reported, and never decide what is unmounted.

	Ready   *time.Time          `json:"ready,omitempty"`   // when all mounts were ready for the first time
	Orphan  *time.Time          `json:"orphan,omitempty"`  // when the daemon found that the ClientMount no longer exists
	Failure *mountstate.Failure `json:"failure,omitempty"` // of the last attempt
	// Unplanned are mounts of the ClientMount for which there is no plan, so that nothing was started.
	Unplanned []MountRecord `json:"unplanned,omitempty"`
	stepLog

	onDisk [sha256.Size]byte // of the file that was last read or written
}

// MountRecord is the state of one mount of a ClientMount.
type MountRecord struct {
	Plan plan.Plan `json:"plan"`
	// Created lists the directories and files that we created for the target, outermost
	// first.
	Created []string `json:"created,omitempty"`
	// Mounting means that the mount command was about to run and nothing was mounted at
	// the path. A mount that is there later is that of the command, even if the daemon
	// died before it could save Mounted.
	Mounting bool `json:"mounting,omitempty"`
	// Mounted is what the mount table showed right after our mount; nil before.
	Mounted *Identity `json:"mounted,omitempty"`
	// Ready means that the whole mount sequence was completed in this boot.
	Ready bool `json:"ready,omitempty"`
	// Unmounting means that an unmount has started; hooks may have stopped services.
	Unmounting bool `json:"unmounting,omitempty"`
	// Unmounted means that the whole unmount sequence was completed.
	Unmounted bool `json:"unmounted,omitempty"`

	// The following fields are reported, and never decide what is unmounted.

	Since   time.Time           `json:"since"`             // of the change to mounting, mounted, unmounting or unmounted
	Failure *mountstate.Failure `json:"failure,omitempty"` // of the last attempt
	Holders []mountstate.Holder `json:"holders,omitempty"` // that the last attempt found, and logged if they had changed
}

// isMounted reports whether there is something to unmount. It returns false for nil.
func (m *MountRecord) isMounted() bool { return m != nil && !m.Unmounted }

// Identity identifies a mount. The kernel assigns mount ID and device, so no user can
// fake them.
type Identity struct {
	ID     int    `json:"id"`
	Device string `json:"device"`
	Root   string `json:"root"`
	FSType string `json:"fstype"`
	Source string `json:"source"`
}

func newRecord(cm *dws.ClientMount, now time.Time) *Record {
	return &Record{
		Version: recordVersion, Name: cm.Name, Namespace: cm.Namespace, UID: string(cm.UID),
		Workflow: cm.Label(api.LabelWorkflowName), Created: now,
	}
}

// clone returns a copy whose mounts can be changed. It returns nil for nil.
func (r *Record) clone() *Record {
	if r == nil {
		return nil
	}
	c := *r
	c.Mounts, c.Steps = slices.Clone(r.Mounts), slices.Clone(r.Steps)
	return &c
}

// withoutReports returns a copy with nothing that is only reported and may be large.
func (r *Record) withoutReports() *Record {
	c := r.clone()
	c.Unplanned, c.stepLog = nil, stepLog{Dropped: r.Dropped + len(r.Steps)}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Holders = nil; m.Failure != nil {
			short := *m.Failure
			short.Text = text.Clip(short.Text, 100)
			m.Failure = &short
		}
	}
	return c
}

// owned returns a copy with nothing that is only reported.
func (r *Record) owned() *Record {
	c := r.clone()
	c.Ready, c.Orphan, c.Failure, c.Unplanned, c.stepLog = nil, nil, nil, nil, stepLog{}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		m.Since, m.Failure, m.Holders = time.Time{}, nil, nil
	}
	return c
}

// at returns the record of the mount at path, or nil.
func (r *Record) at(path string) *MountRecord {
	if r == nil {
		return nil
	}
	for i := range r.Mounts {
		if r.Mounts[i].Plan.Path == path {
			return &r.Mounts[i]
		}
	}
	return nil
}

// plans returns the plans of all mounts.
func (r *Record) plans() []*plan.Plan {
	plans := make([]*plan.Plan, len(r.Mounts))
	for i := range r.Mounts {
		plans[i] = &r.Mounts[i].Plan
	}
	return plans
}

// pending reports whether something may still have to be unmounted. It returns false for
// nil.
func (r *Record) pending() bool {
	return r != nil && slices.ContainsFunc(r.Mounts, func(m MountRecord) bool { return !m.Unmounted })
}

// errUnreadable means that a record exists but cannot be used. Unlike a missing record,
// it means that something may be mounted.
var errUnreadable = errors.New("record cannot be used")

// Records is the directory of records.
type Records struct {
	dir     string
	runtime string // the directory above it
	history *history
	writes  atomic.Int64 // of records, since the start
	mu      sync.Mutex   // held while update changes a file
	// undone has the records of deleted objects whose files could not be written, by
	// uid: *Record. Without it their mounts would be unmounted again at each attempt.
	undone sync.Map
}

// file returns the path of an object's record, which is named by UID: an object that was
// deleted and created again with the same name is another object, and the mounts of the
// old one are orphans.
func (s *Records) file(uid string) (string, error) {
	if uid == "" || len(uid) > 128 || !text.Only(uid, "-") {
		return "", fmt.Errorf("the object has the invalid uid %.140q", uid)
	}
	return filepath.Join(s.dir, uid+recordSuffix), nil
}

// Save replaces the record atomically, so a crash leaves either the old or the new one.
// It does not write an unchanged record. The record must survive the daemon, not the machine.
// If the record cannot be written but differs from the file only in what is reported, Save returns
// nil: a ready mount stays ready while the directory is full. The next Save tries again.
func (s *Records) Save(r *Record) error {
	name, err := s.file(r.UID)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of %s: %w", r.Name, err)
	}
	if len(b) > recordLimit { // what is only reported must not prevent a mount
		if b, err = json.Marshal(r.withoutReports()); err != nil {
			return fmt.Errorf("record of %s: %w", r.Name, err)
		}
	}
	if len(b) > recordLimit {
		return fmt.Errorf("cannot save the record of %s: it has %d bytes, the limit is %d; use fewer mounts in one ClientMount or fewer hooks in its storage profile", r.Name, len(b), recordLimit)
	}
	sum := sha256.Sum256(b)
	if st, err := os.Lstat(name); err == nil && sum == r.onDisk && st.Mode().IsRegular() && st.Size() == int64(len(b)) {
		s.undone.Delete(r.UID)
		return nil
	}
	failpoint.At("record/save")
	s.writes.Add(1)
	if err := replaceFile(name, b, func() { failpoint.At("record/written") }); err != nil {
		if ownedOnDisk(name, r) {
			s.undone.Delete(r.UID)
			return nil
		}
		return fmt.Errorf("cannot save the record of %s: %w", r.Name, err)
	}
	r.onDisk = sum
	s.undone.Delete(r.UID)
	failpoint.At("record/saved")
	return nil
}

// ownedOnDisk reports whether the file of a record differs from it at most in what is reported.
func ownedOnDisk(name string, r *Record) bool {
	saved, err := readRecord(name)
	if err != nil {
		return false
	}
	old, err1 := json.Marshal(saved.owned())
	now, err2 := json.Marshal(r.owned())
	return err1 == nil && err2 == nil && bytes.Equal(old, now)
}

// update changes the record of an object that has no worker, atomically with respect to
// other updates. done reports that no record is left: it did not exist, or update has
// removed it because nothing is left to unmount.
func (s *Records) update(uid string, change func(*Record)) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.Load(uid)
	if err != nil || r == nil {
		return r == nil, err
	}
	change(r)
	if r.pending() {
		if err = s.Save(r); err != nil {
			s.undone.Store(uid, r)
		}
		return false, err
	}
	return true, s.End(r)
}

// End removes the record of a ClientMount whose mounts are unmounted, and keeps its timeline in the
// history. A record that cannot be removed ends later, so that its timeline is kept once.
func (s *Records) End(r *Record) error {
	if err := s.Remove(r.UID); err != nil {
		return err
	}
	now := time.Now()
	return s.history.add(r.life(&now))
}

// KeepHistory makes End keep timelines within limits.
func (s *Records) KeepHistory(limits HistoryLimits) { s.history = newHistory(s.runtime, limits) }

// NoteFailure saves why nothing could be mounted for a ClientMount without a record, for the
// commands that report about the node. Nothing is ever unmounted because of this file.
func (s *Records) NoteFailure(r *Record) error {
	if _, err := s.file(r.UID); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(data) > recordLimit {
		return fmt.Errorf("it has %d bytes, the limit is %d", len(data), recordLimit)
	}
	dir := failuresDirectory(s.runtime)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return replaceFile(filepath.Join(dir, r.UID+recordSuffix), data, nil)
}

// replaceFile replaces a file of the runtime directory atomically. It does not call fsync, because
// the directory is in memory. After an error nothing is left that occupies space. written is called
// before the new file gets its name, and may be nil. safepath.ReplaceFile is for directories in
// which other users can create files.
func replaceFile(name string, data []byte, written func()) error {
	tmp := name + tempSuffix
	err := os.WriteFile(tmp, data, 0o600)
	if err == nil {
		if written != nil {
			written()
		}
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// ForgetFailure removes the file of NoteFailure, if there is one.
func (s *Records) ForgetFailure(uid string) {
	if _, err := s.file(uid); err == nil {
		_ = os.Remove(filepath.Join(failuresDirectory(s.runtime), uid+recordSuffix))
	}
}

// failuresDirectory returns the directory of the files of NoteFailure.
func failuresDirectory(runtimeDir string) string { return filepath.Join(runtimeDir, "failures") }

// Load returns the record of one object, or nil if it has none. Any other failure is an
// error that wraps errUnreadable and names the file.
func (s *Records) Load(uid string) (*Record, error) {
	name, err := s.file(uid)
	if err != nil {
		return nil, err
	}
	if r, ok := s.undone.Load(uid); ok {
		if r := r.(*Record); r.pending() {
			return r.clone(), nil
		}
		return nil, nil
	}
	r, err := readRecord(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// Remove deletes a record. A missing record is not an error.
func (s *Records) Remove(uid string) error {
	name, err := s.file(uid)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.undone.Store(uid, &Record{Version: recordVersion, UID: uid})
		return fmt.Errorf("cannot remove the record: %w", err)
	}
	s.undone.Delete(uid)
	return nil
}

// List returns all readable records, and an error that joins the failures to read others.
// It does not change unreadable files.
func (s *Records) List() ([]*Record, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+recordSuffix))
	if err != nil {
		return nil, err
	}
	var out []*Record
	var errs []error
	for _, n := range names {
		if r, ok := s.undone.Load(strings.TrimSuffix(filepath.Base(n), recordSuffix)); ok {
			out = append(out, r.(*Record).clone())
			continue
		}
		r, err := readRecord(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

// errForeignFile means that the daemon has not written a file of its runtime directory.
var errForeignFile = errors.New("not a file written by clientmountd")

// readOwnFile reads a file of the runtime directory. The error wraps fs.ErrNotExist if it does not
// exist, and errForeignFile if it is not a regular file, or larger than limit.
func readOwnFile(name string, limit int64) ([]byte, error) {
	st, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s is %w (mode %v, %d bytes)", name, errForeignFile, st.Mode(), st.Size())
	}
	return os.ReadFile(name)
}

func readRecord(name string) (*Record, error) {
	const repair = "; unmount the file systems of this ClientMount (see findmnt), then remove the file"
	b, err := readOwnFile(name, recordLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case errors.Is(err, errForeignFile):
		return nil, fmt.Errorf("%w: %w%s", errUnreadable, err, repair)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	var version struct {
		Version int `json:"version"`
	}
	// Decode the version first: a newer layout may not match Record.
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w%s", errUnreadable, name, err, repair)
	}
	if version.Version > recordVersion {
		return nil, fmt.Errorf("%w: %s has version %d and this clientmountd reads versions up to %d; install the newer clientmountd again to unmount", errUnreadable, name, version.Version, recordVersion)
	}
	r := new(Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w%s", errUnreadable, name, err, repair)
	}
	r.onDisk = sha256.Sum256(b)
	if r.Version < 1 || r.UID == "" || filepath.Base(name) != r.UID+recordSuffix {
		return nil, fmt.Errorf("%w: %s does not contain the record that its name indicates (version %d, uid %.140q)%s", errUnreadable, name, r.Version, r.UID, repair)
	}
	return r, nil
}

// OpenRecords creates the directory <runtime>/mounts (0700) if it is missing. The daemon
// runs the commands in a record as root, so no other user may be able to create a record:
// neither directory may be a symbolic link, be owned by another user, or be writable by
// other users.
func OpenRecords(runtimeDir string) (*Records, error) {
	const hint = "; give the daemon its own directory with daemon.runtime_directory (RuntimeDirectory= in the unit)"
	dir := RecordsDirectory(runtimeDir)
	// The permissions of the parent decide which users can rename the runtime directory.
	if err := safepath.CheckParent(filepath.Dir(runtimeDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime directory %s cannot be trusted: %w%s", runtimeDir, err, hint)
	}
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be created: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(runtimeDir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("runtime directory cannot be written to: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(dir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	// Records that a crash left incomplete were never used.
	half, err := filepath.Glob(filepath.Join(dir, "*"+recordSuffix+tempSuffix))
	for _, name := range half {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return nil, fmt.Errorf("runtime directory cannot be cleaned up: %w%s", err, hint)
	}
	// The files about failures are those of an earlier daemon. The next attempt writes them again.
	// They only explain, so the daemon also starts if they cannot be removed.
	_ = os.RemoveAll(failuresDirectory(runtimeDir))
	return &Records{dir: dir, runtime: runtimeDir}, nil
}

// ReadRecords returns the records below a runtime directory, and the errors of those that cannot be
// used. It changes nothing. Without a directory of records it returns none.
func ReadRecords(runtimeDir string) (list []*Record, unreadable []string, err error) {
	return readRecords(RecordsDirectory(runtimeDir))
}

// readAllRecords returns the records, and the files of NoteFailure for ClientMounts without one.
// Nothing is mounted for the latter, so an unreadable file about them does not matter.
func readAllRecords(runtimeDir string) (list []*Record, unreadable []string, err error) {
	// The failures first: one that becomes a record meanwhile is then in both.
	failures, _, err := readRecords(failuresDirectory(runtimeDir))
	if err != nil {
		return nil, nil, err
	}
	list, unreadable, err = ReadRecords(runtimeDir)
	for _, f := range failures {
		if !slices.ContainsFunc(list, func(r *Record) bool { return r.UID == f.UID }) {
			list = append(list, f)
		}
	}
	return list, unreadable, err
}

func readRecords(dir string) (list []*Record, unreadable []string, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("records cannot be read: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue // an incomplete record was never used
		}
		r, err := readRecord(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since
		case err != nil:
			unreadable = append(unreadable, err.Error())
		default:
			list = append(list, r)
		}
	}
	return list, unreadable, nil
}

// RecordsDirectory returns the directory of the records below a runtime directory.
func RecordsDirectory(runtimeDir string) string { return filepath.Join(runtimeDir, "mounts") }

// mountCount counts the records of mounts that are in place.
type mountCount struct {
	Objects    int // records, one for each ClientMount, with at least one mount in place
	Unreadable int // records that cannot be used: something may be mounted
}

// mountLister returns the mounts at exactly a path. node.Node implements it.
type mountLister interface {
	MountsOn(path string) ([]node.Mount, error)
}

// countMounted counts records with mounts in place: the record lists a mount, and the
// mount table shows it. If the table cannot be read, the record decides. Without a
// directory of records the count is 0. countMounted changes nothing and touches no mount.
func countMounted(runtimeDir string, table mountLister) (m mountCount, err error) {
	list, unreadable, err := ReadRecords(runtimeDir)
	m.Unreadable = len(unreadable)
	for _, r := range list {
		if slices.ContainsFunc(r.Mounts, func(one MountRecord) bool { return one.inPlace(table) }) {
			m.Objects++
		}
	}
	return m, err
}

// inPlace reports whether the recorded mount is in the mount table.
func (m *MountRecord) inPlace(table mountLister) bool {
	if m.Unmounted || m.Mounted == nil && !m.Mounting && !m.Ready {
		return false
	}
	on, err := table.MountsOn(m.Plan.Path)
	return err != nil || slices.ContainsFunc(on, func(one node.Mount) bool {
		return m.Mounted == nil || m.Mounted.is(one) || m.Mounted.Device == one.Device().String()
	})
}
