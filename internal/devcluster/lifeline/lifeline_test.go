package lifeline

import (
	"context"
	"io"
	"testing"
)

func TestFollowStdin(t *testing.T) {
	reader, writer := io.Pipe()
	ctx, cancel := FollowStdin(t.Context(), reader)
	defer cancel()
	if _, err := writer.Write([]byte("input is not an end\n")); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("cancelled before the end of the input")
	}
	writer.CloseWithError(io.ErrUnexpectedEOF)
	<-ctx.Done() // blocks if the end is not detected
}

func TestFollowStdinParentContext(t *testing.T) {
	outer, end := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	defer writer.Close()
	ctx, cancel := FollowStdin(outer, reader)
	defer cancel()
	end()
	<-ctx.Done()
}
