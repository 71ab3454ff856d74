package server

import (
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// typedError is for version 2: code, text and reason.
func typedError(err error) error {
	f := datamovement.Explain(err)
	if f == nil {
		return nil
	}
	reason, meta := reasonOf(f)
	return pb2.NewError(reason, clip(f.Error()), meta)
}

func reasonOf(f *datamovement.Fault) (pb2.ErrorReason, map[string]string) {
	name, meta := f.Info()
	return pb2.ErrorReason(pb2.ErrorReason_value[string(name)]), meta
}
