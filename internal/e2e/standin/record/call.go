package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Call is one run of a stand-in. End is zero and Exit is -1 while it runs and
// for ever when it was killed.
type Call struct {
	ID    string            `json:"id"`
	Tool  string            `json:"tool"`
	Argv  []string          `json:"argv"`
	Env   map[string]string `json:"env,omitempty"`
	PID   int               `json:"pid"`
	PPID  int               `json:"ppid"`
	Start time.Time         `json:"start"`
	End   time.Time         `json:"end,omitzero"`
	Exit  int               `json:"exit"`
}

// Append adds one line to the log. A call is written twice, at its start and
// at its end; each is one write, so lines of parallel calls do not mix.
func (d Dir) Append(c Call) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// Calls returns every call in order of its start.
func (d Dir) Calls() ([]Call, error) {
	data, err := os.ReadFile(d.LogPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var calls []Call
	at := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var c Call
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			continue // a line cut by a kill
		}
		if i, seen := at[c.ID]; seen {
			calls[i] = c
			continue
		}
		at[c.ID] = len(calls)
		calls = append(calls, c)
	}
	return calls, lines.Err()
}
