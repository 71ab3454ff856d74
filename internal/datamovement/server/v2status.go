package server

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// movementStatus says how far a movement is in version 2's words.
func movementStatus(n snapshot) *pb2.MovementStatus {
	switch {
	case n.dm == nil:
		return datamovement.GoneV2(n.uid, false)
	case n.tombstone == nil:
		return datamovement.StatusV2(n.dm)
	}
	out := datamovement.StatusV2(n.dm)
	gone := datamovement.GoneV2(n.uid, true)
	out.State, out.Result, out.Message, out.EndTime = gone.State, gone.Result, gone.Message, timestamppb.New(n.tombstone.at)
	return out
}
