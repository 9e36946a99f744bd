// A case that a test has written: a row of arrays, each its size in bytes (int64) and its bytes.
#pragma once

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <vector>

namespace {

template <class T>
std::vector<T> read(std::ifstream& file) {
    std::int64_t bytes = 0;
    file.read(reinterpret_cast<char*>(&bytes), sizeof bytes);
    std::vector<T> values(static_cast<std::size_t>(bytes) / sizeof(T));
    file.read(reinterpret_cast<char*>(values.data()), bytes);
    if (!file) throw std::runtime_error("the case is cut short");
    return values;
}

}  // namespace
