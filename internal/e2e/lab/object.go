package lab

import "fmt"

// Object is a Kubernetes object as JSON.
type Object map[string]any

func asObject(v any) Object {
	switch v := v.(type) {
	case Object:
		return v
	case map[string]any:
		return v
	}
	return nil
}

// At returns what is at a path of field names and list indices, nil when there
// is nothing.
func (o Object) At(path ...any) any {
	var v any = o
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = asObject(v)[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		default:
			panic(fmt.Sprintf("a path has names and indices, not %T", p))
		}
	}
	return v
}

// String returns the text at a path of field names, empty when there is none.
func (o Object) String(path ...string) string {
	var v any = o
	for _, p := range path {
		v = asObject(v)[p]
	}
	s, _ := v.(string)
	return s
}

// Name returns metadata.name.
func (o Object) Name() string { return o.String("metadata", "name") }

// Namespace returns metadata.namespace.
func (o Object) Namespace() string { return o.String("metadata", "namespace") }

// Ready tells whether every mount of a ClientMount has reached the state, by
// the rule of the rabbit: allReady is not consulted (contract clientmountd.md
// 2.4).
func (o Object) Ready(state string) bool {
	wanted, _ := o.At("spec", "mounts").([]any)
	got, _ := o.At("status", "mounts").([]any)
	if len(got) != len(wanted) || len(got) == 0 {
		return false
	}
	for _, m := range got {
		if o := asObject(m); o.String("state") != state || o["ready"] != true {
			return false
		}
	}
	return true
}

// Severity returns status.error.severity, empty without an error.
func (o Object) Severity() string { return o.String("status", "error", "severity") }

// DebugMessage returns status.error.debugMessage.
func (o Object) DebugMessage() string { return o.String("status", "error", "debugMessage") }
