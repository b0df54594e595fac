"""Trial."""
import keras
from pipeline.architectures._lab import net

def build() -> keras.Model:
    """Trial."""
    return net([[32],[48,48],[96,96],[192,192]], dropout=0.0)
