#include "guest/memory/window_object.h"

namespace dbos {

WindowObject::WindowObject(PhysicalAddress address, u64 length, WindowKind kind,
                           const FileIdentity& file)
    : address_(address), length_(length), kind_(kind), file_(file) {
  u32 i = 0;
  for (; i + 1 < kWindowPathMax && file.path[i] != '\0'; ++i) path_[i] = file.path[i];
  path_[i] = '\0';
  file_.path = path_;
}

Result<WindowObject*> window_create(PhysicalAddress address, u64 length, WindowKind kind,
                                    const FileIdentity& file) {
  WindowObject* object = heap_new<WindowObject>(address, align_up(length, kPageSize), kind, file);
  if (object == nullptr) return Error(ENOMEM);
  return object;
}

void window_release(WindowObject* object) {
  DroppedWindows dropped;
  dropped.drop_reference(object);
}

DroppedWindows::~DroppedWindows() {
  while (head_ != nullptr) {
    WindowObject* object = head_;
    head_ = object->next_dropped_;
    platform::window_unmap(object->address(), object->length());
    heap_delete(object);
  }
}

}  // namespace dbos
