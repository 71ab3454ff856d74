package rabbit

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// finalizer keeps a movement until its command has exited.
const finalizer = "dm.cray.hpe.com"

// Values of status.state and status.status.
const (
	running     = "Running"
	finished    = "Finished"
	success     = "Success"
	failed      = "Failed"
	invalidated = "Invalid"
	cancelled   = "Cancelled"
)

// movement has the fields of an NnfDataMovement that the rabbit reads.
type movement struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Source           end        `json:"source"`
		Destination      end        `json:"destination"`
		UserID           int        `json:"userId"`
		GroupID          int        `json:"groupId"`
		Cancel           bool       `json:"cancel"`
		ProfileReference reference  `json:"profileReference"`
		UserConfig       userConfig `json:"userConfig"`
	} `json:"spec"`
	Status struct {
		State     string `json:"state"`
		StartTime string `json:"startTime"`
		Restarts  int    `json:"restarts"`
	} `json:"status"`
}

type end struct {
	Path             string    `json:"path"`
	StorageReference reference `json:"storageReference"`
}

type reference struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type userConfig struct {
	Dryrun        bool   `json:"dryrun"`
	MpirunOptions string `json:"mpirunOptions"`
	DcpOptions    string `json:"dcpOptions"`
	LogStdout     bool   `json:"logStdout"`
	StoreStdout   bool   `json:"storeStdout"`
	Slots         *int   `json:"slots"`
	MaxSlots      *int   `json:"maxSlots"`
}

func decode(o *unstructured.Unstructured) (*movement, error) {
	m := &movement{}
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, m)
	return m, err
}

// problem is an error of the preparation, for status.error.
type problem struct {
	kind, severity, text string
}

func (p *problem) Error() string { return p.text }

// minor returns a problem after which the rabbit retries.
func minor(format string, args ...any) error {
	return &problem{"Internal", "Minor", fmt.Sprintf(format, args...)}
}

// invalid returns a problem that finishes the movement. kind is User or Internal.
func invalid(kind, format string, args ...any) error {
	return &problem{kind, "Fatal", fmt.Sprintf(format, args...)}
}

func (p *problem) write(status map[string]any) {
	status["message"] = p.text
	entry := map[string]any{"type": p.kind, "severity": p.severity, "debugMessage": p.text}
	if p.kind == "User" {
		entry["userMessage"] = p.text
	}
	status["error"] = entry
}

// stamp formats a time like metav1.MicroTime.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }
