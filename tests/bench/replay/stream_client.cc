#include "tests/bench/replay/stream_client.h"

namespace troupe {

StreamClient::StreamClient(std::shared_ptr<grpc::Channel> channel, std::string method,
                           const Measuring* measuring)
    : measuring_(*measuring), method_(std::move(method)), stub_(std::move(channel)) {}

void StreamClient::Start() {
  stub_.PrepareBidiStreamingCall(&context_, method_, {}, this);
  // gRPC must not call OnDone while a Wake from elsewhere may start a write.
  AddHold();
  StartRead(&received_);
  {
    absl::MutexLock lock(&mu_);
    WriteNext();
  }
  StartCall();
}

const grpc::Status& StreamClient::Await() {
  done_.WaitForNotification();
  return status_;
}

void StreamClient::OnReadDone(bool ok) {
  if (!ok) {
    {
      absl::MutexLock lock(&mu_);
      writes_closed_ = true;
    }
    RemoveHold();
    return;
  }
  Receive(received_);
  {
    absl::MutexLock lock(&mu_);
    HandleReceived();
    WriteNext();
  }
  StartRead(&received_);
}

void StreamClient::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok) writes_closed_ = true;
  WriteNext();
}

void StreamClient::OnDone(const grpc::Status& status) {
  status_ = status;
  HandleEnd();
  done_.Notify();
}

void StreamClient::Wake() {
  absl::MutexLock lock(&mu_);
  WriteNext();
}

void StreamClient::CloseWrites() {
  if (writes_closed_) return;
  writes_closed_ = true;
  StartWritesDone();
}

void StreamClient::WriteNext() {
  if (writing_ || writes_closed_ || !NextMessage(&message_)) return;
  writing_ = true;
  StartWrite(&message_);
}

}  // namespace troupe
