package rabbit

import (
	"encoding/json"
	"os"
	"time"
)

// Record is a line of commands.log, which is JSON so that a line break in a
// command stays within its record.
type Record struct {
	Time     string `json:"time"`
	Movement string `json:"movement"` // NAMESPACE/NAME
	UID      string `json:"uid"`
	What     string `json:"what"`    // copy, or stat and mkdir of the preparation
	Command  string `json:"command"` // as bash -c got it
}

type recorder struct{ *os.File }

func openRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &recorder{f}, err
}

// write appends in one call, for other rabbits may write to the file too.
func (r *recorder) write(w *worker, what, command string) {
	line, err := json.Marshal(Record{stamp(time.Now()), w.ns + "/" + w.name, string(w.uid), what, command})
	if err == nil {
		_, err = r.Write(append(line, '\n'))
	}
	if err != nil {
		w.Log("commands.log: %v", err)
	}
}
