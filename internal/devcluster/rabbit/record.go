package rabbit

import (
	"encoding/json"
	"os"
	"time"
)

// Record is a line of commands.log, in JSON, so that line breaks in commands are
// escaped.
type Record struct {
	Time     string `json:"time"`
	Movement string `json:"movement"` // NAMESPACE/NAME
	UID      string `json:"uid"`
	What     string `json:"what"`    // copy; stat and mkdir during the preparation
	Command  string `json:"command"` // argument of bash -c
}

type recorder struct{ *os.File }

func openRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &recorder{f}, err
}

// write appends a record in one call, because other rabbits may write to the file, too.
func (r *recorder) write(w *worker, what, command string) {
	line, err := json.Marshal(Record{stamp(time.Now()), w.ns + "/" + w.name, string(w.uid), what, command})
	if err == nil {
		_, err = r.Write(append(line, '\n'))
	}
	if err != nil {
		w.Log("commands.log: %v", err)
	}
}
