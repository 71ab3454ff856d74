package kube

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// maxFrame bounds one event of a watch, in bytes. etcd stores objects of at most 1.5 MiB.
const maxFrame = 4 << 20

var (
	errFrameTooBig = fmt.Errorf("an event of the watch is larger than %d MiB", maxFrame>>20)
	errBadFrame    = errors.New("the watch delivered an invalid event")
)

// frame is one event of a watch; its object is not decoded yet.
type frame struct {
	Type   string             `json:"type"`
	Object stdjson.RawMessage `json:"object"`
}

// frames decodes the body of a watch.
type frames struct {
	dec   *stdjson.Decoder
	limit *boundedReader
}

func newFrames(body io.Reader) *frames {
	b := &boundedReader{body, maxFrame, errFrameTooBig}
	return &frames{dec: stdjson.NewDecoder(b), limit: b}
}

// next returns the next event. io.EOF means that the server ended the watch between two
// events, io.ErrUnexpectedEOF that the connection was lost within an event.
func (f *frames) next() (frame, error) {
	var out frame
	err := f.dec.Decode(&out)
	f.limit.left = maxFrame
	var syntax *stdjson.SyntaxError
	var shape *stdjson.UnmarshalTypeError
	switch {
	case err == nil && out.Type == "":
		return frame{}, errBadFrame
	case errors.As(err, &syntax), errors.As(err, &shape):
		return frame{}, fmt.Errorf("%w: %v", errBadFrame, err)
	}
	return out, err
}

// header is the metadata of an object that is not decoded.
type header struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// headerOf decodes the metadata of an object. Like the decoding of the object it is
// case-sensitive, so that both return the same name.
func headerOf(raw []byte) (header, error) {
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("%w: %v", errBadFrame, err)
	}
	return h, nil
}

// endsInitialEvents reports whether a bookmark marks the end of the initial state.
func (h header) endsInitialEvents() bool {
	return h.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true"
}

// errorOf returns the API error of an ERROR event.
func errorOf(raw []byte) error {
	st, err := decodeStatus(raw)
	if err != nil {
		return fmt.Errorf("%w: error event: %v", errBadFrame, err)
	}
	return apierrors.FromObject(st)
}

// Object is a pointer to a Kubernetes object of type T.
type Object[T any] interface {
	*T
	metav1.Object
}

// Handler receives the events of a watch. The goroutine of Watch makes all calls, one
// after another; they must not block for long. Any function may be nil.
type Handler[T any] struct {
	// Replace is called with all objects: at start, and when the position in the
	// server's history was lost. Objects that are not in the list were deleted, except
	// those reported by Malformed just before.
	Replace func(items []*T)
	// Upsert is called with an object that is new or has changed.
	Upsert func(obj *T)
	// Delete is called with the name of a deleted object.
	Delete func(namespace, name string)
	// Malformed is called with the name of an object that exists but cannot be decoded,
	// so the caller must not act on it. Any older copy is stale.
	Malformed func(namespace, name string, err error)
}

// sink receives the events of the watch loop, which does not depend on types.
type sink interface {
	replace(items []stdjson.RawMessage)
	upsert(raw []byte) (resourceVersion string, err error)
	remove(namespace, name string)
}

// typed decodes objects for a Handler.
type typed[T any, P Object[T]] struct {
	h    Handler[T]
	log  *slog.Logger
	kind string
}

func (t *typed[T, P]) replace(items []stdjson.RawMessage) {
	out := make([]*T, 0, len(items))
	for _, raw := range items {
		// decode logs an item without a name; it is skipped.
		if obj, _, _ := t.decode(raw); obj != nil {
			out = append(out, obj)
		}
	}
	if t.h.Replace != nil {
		t.h.Replace(out)
	}
}

func (t *typed[T, P]) upsert(raw []byte) (string, error) {
	obj, rv, err := t.decode(raw)
	if obj != nil && t.h.Upsert != nil {
		t.h.Upsert(obj)
	}
	return rv, err
}

func (t *typed[T, P]) remove(namespace, name string) {
	if t.h.Delete != nil {
		t.h.Delete(namespace, name)
	}
}

// decode returns nil for an object that cannot be used, and logs it. err is set only if
// the name of the object cannot be read.
func (t *typed[T, P]) decode(raw []byte) (*T, string, error) {
	obj := new(T)
	p := P(obj)
	err := json.Unmarshal(raw, obj)
	if err == nil && p.GetName() != "" {
		p.SetManagedFields(nil)
		return obj, p.GetResourceVersion(), nil
	}
	h, herr := headerOf(raw)
	m := h.Metadata
	if herr == nil && (m.Name == "" || err == nil) {
		herr = fmt.Errorf("%w: %s without a name", errBadFrame, t.kind)
	}
	if herr != nil {
		t.log.Warn("ignoring an object without a readable name", "kind", t.kind, "error", clip(herr.Error()))
		return nil, "", herr
	}
	err = fmt.Errorf("%s %q cannot be decoded: %s", t.kind, m.Namespace+"/"+m.Name, clip(err.Error()))
	t.log.Warn("ignoring an object that cannot be decoded", "kind", t.kind,
		"namespace", m.Namespace, "name", m.Name, "error", err)
	if t.h.Malformed != nil {
		t.h.Malformed(m.Namespace, m.Name, err)
	}
	return nil, m.ResourceVersion, nil
}
