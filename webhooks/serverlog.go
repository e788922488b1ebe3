package webhooks

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"

	"github.com/countersign-dev/countersign/internal/text"
)

// serverLog passes what net/http reports, such as failed handshakes, on to the manager's log.
// Whoever reaches the port can cause such reports, so each is cut to maxLine bytes, and those
// beyond the limit are dropped; the next one that is passed on says how many. It implements
// slog.Handler for slog.NewLogLogger, which adds no attributes and no groups.
type serverLog struct {
	log     logr.Logger
	limiter *rate.Limiter
	dropped atomic.Int64
}

// newServerLog returns a serverLog that passes on 10 reports at once, and one more every 10 s.
func newServerLog(log logr.Logger) *serverLog {
	return &serverLog{log: log, limiter: rate.NewLimiter(rate.Every(10*time.Second), 10)}
}

// Enabled implements slog.Handler.
func (*serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *serverLog) Handle(_ context.Context, r slog.Record) error {
	if !l.limiter.Allow() {
		l.dropped.Add(1)
		return nil
	}
	l.log.Info("The HTTP server reported a fault", "report", text.Cut(r.Message, maxLine), "droppedBefore",
		l.dropped.Swap(0))
	return nil
}

// WithAttrs implements slog.Handler.
func (l *serverLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *serverLog) WithGroup(string) slog.Handler { return l }
